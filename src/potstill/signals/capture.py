"""Send texts through a teacher once, and keep what it says of them.

In: texts as token ids with a mask of targets, each with its key. Out: records for those that a store lacked, in one store or in
several. What it costs: one forward pass for each text whatever the number of stores, epochs, students and searches that read
them; memory for one batch and one tile of logits, however many texts there are. A capture that was killed goes on with the
batch it was at: each store keeps a batch whole or not at all, so that those that follow are the same as without the kill, as
are their signals, to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from potstill.errors import InputError, JobCanceledError
from potstill.signals.counts import CountsEncoding, starts_of
from potstill.signals.encoding import Encoding
from potstill.signals.hidden import HiddenEncoding
from potstill.signals.packing import Array
from potstill.signals.products import Head, multiplied_by_the_faster_library
from potstill.signals.records import Record
from potstill.signals.selecting import BLOCK
from potstill.signals.signal import Dense
from potstill.signals.source import Observation, TargetBatch
from potstill.signals.store import SignalStore
from potstill.signals.teacher import LiveTeacher
from potstill.signals.top_k import TopKEncoding

BATCH_TOKENS = 2048  # padding included: fills a processor, and is little to lose at a kill
TILE_BYTES = 48 * 2**20  # of logits: products of fewer positions are slow, and more are no faster; a GPU is filled by less


@dataclass(frozen=True, slots=True)
class CaptureText:
    """A text to capture: its token ids, which of them are targets, and its key (`TextKeys.of`)."""

    input_ids: Sequence[int]
    target_mask: Sequence[bool]
    key: str


@dataclass(frozen=True, slots=True)
class CaptureProgress:
    """How far a capture is. positions: target tokens. Rates and times are of this process alone."""

    texts: int
    total_texts: int
    positions: int
    total_positions: int
    positions_per_s: float
    eta_s: float


def capture(
    teacher: LiveTeacher,
    texts: Sequence[CaptureText],
    stores: Sequence[SignalStore],
    *,
    on_progress: Callable[[CaptureProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Capture the texts that one of the stores lacks, the longest first; returns how many those were.

    Args:
        teacher: The one whose identity the stores' headers name.
        stores: Open for writing; the encoding of each says what it keeps.
        on_progress: Called after each batch.
        should_stop: Asked before each batch.

    Raises:
        InputError: a store's vocabulary is larger than the teacher's head, or its hidden states of another width.
        JobCanceledError: `should_stop` said yes; the same call goes on where it stopped.
        MachineError: a store cannot be written.
    """
    for store in stores:
        _check(teacher, store.encoding)
    by_key = {text.key: text for text in texts}
    lacking = {key for store in stores for key in store.missing(by_key)}
    missing = sorted((by_key[key] for key in lacking), key=lambda text: (-len(text.input_ids), text.key))
    started, done, total = time.monotonic(), 0, sum(sum(text.target_mask) for text in missing)
    texts_done = 0
    for batch in _batches(missing):
        if should_stop():
            raise JobCanceledError("the capture of signals was cancelled", hint="it goes on where it stopped")
        _keep(teacher, batch, stores)
        texts_done, done = texts_done + len(batch), done + sum(sum(text.target_mask) for text in batch)
        rate = done / max(time.monotonic() - started, 1e-9)
        eta_s = (total - done) / max(rate, 1e-9)
        on_progress(CaptureProgress(texts_done, len(missing), done, total, rate, eta_s))
    return len(missing)


def _check(teacher: LiveTeacher, encoding: Encoding) -> None:
    if isinstance(encoding, HiddenEncoding):
        fits, found, expected = encoding.width == teacher.width, encoding.width, f"hidden states {teacher.width} wide"
    else:
        fits, found = encoding.vocabulary <= teacher.head_rows, encoding.vocabulary
        expected = f"at most {teacher.head_rows} tokens, as the teacher's head has rows"
    if not fits:
        raise InputError("these signals cannot be of this teacher", where="teacher", found=found, expected=expected)


def _batches(texts: Sequence[CaptureText]) -> Iterator[list[CaptureText]]:
    """Neighbours, as many as fit. What a batch holds depends on the texts from its first on alone, so that leaving out whole
    batches before it changes nothing."""
    start = 0
    while start < len(texts):
        count = max(1, BATCH_TOKENS // len(texts[start].input_ids))  # no later one is longer
        yield list(texts[start : start + count])
        start += count


def _keep(teacher: LiveTeacher, texts: Sequence[CaptureText], stores: Sequence[SignalStore]) -> None:
    """One pass of the teacher, and what each store lacks of it."""
    batch = _as_batch(texts, teacher.device)
    layers = {layer for store in stores if isinstance(store.encoding, HiddenEncoding) for layer in store.encoding.layers}
    observed = teacher.observe(batch, hidden_layers=sorted(layers))
    for store in stores:
        lacking = set(store.missing(text.key for text in texts))
        if lacking:
            store.append([record for record in _records(teacher, observed, texts, store.encoding) if record.key in lacking])


def _records(
    teacher: LiveTeacher, observed: Observation, texts: Sequence[CaptureText], encoding: Encoding
) -> list[Record]:
    if isinstance(encoding, HiddenEncoding):
        arrays = encoding.select(observed.hidden)
    else:
        arrays = _distributions(teacher.signal_in(observed, 1.0), encoding, texts)
    records, start = [], 0
    for text in texts:
        stop = start + sum(text.target_mask)
        records.append(Record(text.key, stop - start, encoding.pack(*(part[start:stop] for part in arrays))))
        start = stop
    return records


def _as_batch(texts: Sequence[CaptureText], device: torch.device) -> TargetBatch:
    """The texts padded on the right, and the positions before their targets."""
    length = max(len(text.input_ids) for text in texts)
    ids, mask = torch.zeros((len(texts), length), dtype=torch.int64), torch.zeros((len(texts), length), dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text.input_ids)] = torch.tensor(text.input_ids)
        mask[row, : len(text.input_ids)] = torch.tensor(text.target_mask)
    if mask[:, 0].any():
        raise ValueError("nothing comes before the first token from which it could be predicted")
    return TargetBatch(ids.to(device), (mask.flatten().nonzero()[:, 0] - 1).to(device), tuple(text.key for text in texts))


def _distributions(
    dense: Dense, encoding: TopKEncoding | CountsEncoding, texts: Sequence[CaptureText]
) -> tuple[Array, ...]:
    """What the encoding keeps of all positions, of which one tile after the other is sent through the head."""
    starts = torch.from_numpy(np.concatenate([starts_of(text.key, sum(text.target_mask)) for text in texts]))
    starts = starts.to(dense.hidden.device)
    parts, start = [], 0
    for logits in _tiles(dense, encoding.vocabulary):
        parts.append(encoding.select(logits, starts[start : start + len(logits)]))
        start += len(logits)
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _tiles(dense: Dense, vocabulary: int) -> Iterator[torch.Tensor]:
    """The logits (C, V) of one tile of positions after the other, in one buffer; V is the vocabulary and -inf behind it."""
    rows = min(len(dense.weight), -(-vocabulary // BLOCK) * BLOCK)  # whole blocks need no filling up
    head = Head.of(dense.weight, dense.bias, rows)
    tile = max(1, TILE_BYTES // (4 * rows))
    buffer = torch.empty((min(tile, len(dense)), rows), device=dense.hidden.device)
    with multiplied_by_the_faster_library():
        for start in range(0, len(dense), tile):
            logits = head.logits(dense.hidden[start : start + tile], buffer)
            logits[:, vocabulary:] = -torch.inf
            yield logits
