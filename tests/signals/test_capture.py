"""A captured text says what the live teacher says of it, whatever stopped the capture and in whatever order it was made."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from potstill.errors import InputError, JobCanceledError
from potstill.signals import capture as capture_module
from potstill.signals.capture import CaptureProgress, CaptureText, capture
from potstill.signals.counts import CountsEncoding
from potstill.signals.header import StoreHeader
from potstill.signals.hidden import HiddenEncoding
from potstill.signals.records import Record
from potstill.signals.signal import Counts, TopK
from potstill.signals.source import TargetBatch
from potstill.signals.store import SignalStore, StoredSignals
from potstill.signals.stored_layers import StoredLayers
from potstill.signals.teacher import LiveTeacher
from potstill.signals.top_k import TopKEncoding
from signals.capturing import FORMS, KEYS, SMALL_BATCH_TOKENS, SMALL_TILE_BYTES, some_texts, teacher
from signals.conftest import VOCABULARY

TEXTS = some_texts()


@pytest.fixture(scope="module")
def live() -> LiveTeacher:
    return teacher()


@pytest.fixture(autouse=True)
def _small_batches_and_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module, "BATCH_TOKENS", SMALL_BATCH_TOKENS)
    monkeypatch.setattr(capture_module, "TILE_BYTES", SMALL_TILE_BYTES)


def batch_of(text: CaptureText) -> TargetBatch:
    positions = torch.tensor([at - 1 for at, is_target in enumerate(text.target_mask) if is_target], dtype=torch.int64)
    return TargetBatch(torch.tensor([text.input_ids]), positions, (text.key,))


def captured(folder: Path, form: str, live: LiveTeacher, texts: list[CaptureText] | None = None) -> SignalStore:
    with SignalStore(folder, StoreHeader(KEYS, FORMS[form]), writable=True) as store:
        capture(live, TEXTS if texts is None else texts, [store])
    return SignalStore(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """What the store holds of each text, byte for byte."""
    store = SignalStore(folder)
    return {text.key: bytes(body.content) for text, body in zip(TEXTS, store._bodies([t.key for t in TEXTS]), strict=True)}


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_top_k_is_of_the_live_distribution(temperature: float, live: LiveTeacher, tmp_path: Path) -> None:
    source = StoredSignals(captured(tmp_path, "top_k", live))
    for text in TEXTS:
        batch = batch_of(text)
        told, dense = source.signal(batch, temperature), live.signal(batch, temperature)
        assert isinstance(told, TopK)
        exact = torch.log_softmax((dense.hidden @ dense.weight.T).double() / temperature, dim=1)
        used = told.logprobs > -torch.inf
        assert ((told.logprobs.exp() - exact.gather(1, told.ids).exp())[used].abs() < 0.005).all()
        torch.testing.assert_close(
            told.log_tail.double().exp(), 1 - (exact.gather(1, told.ids).exp() * used).sum(1), rtol=1e-3, atol=1e-5
        )
        assert told.drawn is not None
        tails = exact.exp().scatter_add(1, told.ids, -exact.gather(1, told.ids).exp() * used)
        shares = torch.zeros_like(tails).scatter_add(1, told.drawn.ids, told.drawn.shares.double())
        assert ((shares - tails).abs() < 1.01 / 200).all()


def test_counts_are_drawn_from_the_live_distribution(live: LiveTeacher, tmp_path: Path) -> None:
    source = StoredSignals(captured(tmp_path, "counts", live))
    for text in TEXTS:
        dense = live.signal(batch_of(text), 0.7)
        told = source.signal(batch_of(text), 0.7)
        assert isinstance(told, Counts)
        exact = torch.softmax(dense.hidden @ dense.weight.T / 0.7, dim=1)
        shares = torch.zeros_like(exact).scatter_add(1, told.ids, told.shares)
        assert ((shares - exact).abs() < 1.01 / 50).all()


def test_hidden_states_are_the_live_ones(live: LiveTeacher, tmp_path: Path) -> None:
    store = captured(tmp_path, "hidden", live)
    seen = live.observe(batch_of(TEXTS[3]), hidden_layers=(0, 2)).hidden
    for layer, states in store.read_hidden([TEXTS[3].key]).items():
        torch.testing.assert_close(states, seen[layer], rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="no distributions"):
        store.read([TEXTS[3].key], 1.0)
    layers = StoredLayers(store, layer_count=3)
    assert layers.observe(batch_of(TEXTS[3]), hidden_layers=[2]).hidden.keys() == {2}
    for asked in ({"hidden_layers": [1]}, {"attention_layers": [2]}):
        with pytest.raises(ValueError, match="nothing else"):
            layers.observe(batch_of(TEXTS[3]), **asked)
    with pytest.raises(InputError, match="no hidden states"):
        StoredLayers(captured(tmp_path / "top_k", "top_k", live), layer_count=3)


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_texts_changes_nothing(form: str, live: LiveTeacher, tmp_path: Path) -> None:
    captured(tmp_path / "one", form, live)
    shuffled = random.Random(1).sample(TEXTS, len(TEXTS))
    captured(tmp_path / "two", form, live, [*shuffled, *shuffled[:5]])
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_killed_capture_goes_on_and_ends_with_the_same_bytes(live: LiveTeacher, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "signals.capturing", str(tmp_path / "killed"), "top_k"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(2):
            done = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    with SignalStore(tmp_path / "killed") as store:
        assert done <= len(store)
        left = len(store.missing([text.key for text in TEXTS]))
    with SignalStore(tmp_path / "killed", StoreHeader(KEYS, FORMS["top_k"]), writable=True) as store:
        assert capture(live, TEXTS, [store]) == left
        assert capture(live, TEXTS, [store]) == 0
    captured(tmp_path / "calm", "top_k", live)
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")


@pytest.mark.parametrize("form", FORMS)
def test_a_cancelled_capture_keeps_what_it_has_and_goes_on(form: str, live: LiveTeacher, tmp_path: Path) -> None:
    told: list[CaptureProgress] = []
    with SignalStore(tmp_path / "stopped", StoreHeader(KEYS, FORMS[form]), writable=True) as store:
        with pytest.raises(JobCanceledError):
            capture(live, TEXTS, [store], on_progress=told.append, should_stop=lambda: len(told) == 3)
        assert len(store) == told[-1].texts > 0
        left = capture(live, TEXTS, [store], on_progress=told.append)
    assert left == len(TEXTS) - told[2].texts
    assert (told[-1].texts, told[-1].positions) == (left, told[-1].total_positions)
    captured(tmp_path / "calm", form, live)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "calm")


@contextmanager
def counting_passes(live: LiveTeacher) -> Iterator[list[int]]:
    """How many texts each forward pass of the teacher had."""
    seen: list[int] = []
    handle = live._network.get_decoder().register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    yield seen
    handle.remove()


def test_only_what_is_missing_is_sent_through_the_teacher(live: LiveTeacher, tmp_path: Path) -> None:
    captured(tmp_path, "top_k", live, TEXTS[:20])
    with counting_passes(live) as seen:
        captured(tmp_path, "top_k", live)
    assert sum(seen) == 10


@pytest.mark.parametrize("breaks_after", [None, 3])
def test_one_pass_serves_several_stores_even_if_it_breaks_off_between_them(
    breaks_after: int | None, live: LiveTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms, appended = ("top_k", "hidden"), list[str]()
    append = SignalStore.append

    def breaking(store: SignalStore, records: Sequence[Record]) -> None:
        appended.append(store.encoding.name)
        if appended.count("hidden") - 1 == breaks_after:
            appended.append("hidden")  # once is enough
            raise KeyboardInterrupt
        append(store, records)

    def both() -> int:
        with ExitStack() as opened:
            stores = [SignalStore(tmp_path / form, StoreHeader(KEYS, FORMS[form]), writable=True) for form in forms]
            return capture(live, TEXTS, [opened.enter_context(store) for store in stores])

    monkeypatch.setattr(SignalStore, "append", breaking)
    with counting_passes(live) as seen:
        if breaks_after is not None:
            with pytest.raises(KeyboardInterrupt):
                both()
        left = both()
    batch_of_both = 0 if breaks_after is None else seen[breaks_after]  # read again for the store that missed it
    assert sum(seen) == len(TEXTS) + batch_of_both
    assert left == len(TEXTS) - sum(seen[: breaks_after or 0])
    for form in forms:
        captured(tmp_path / "alone" / form, form, live)
        assert contents(tmp_path / form) == contents(tmp_path / "alone" / form)


@pytest.mark.parametrize("encoding", [TopKEncoding(VOCABULARY + 1), CountsEncoding(VOCABULARY + 1), HiddenEncoding((0,), 33)])
def test_signals_of_another_shape_are_refused(
    encoding: TopKEncoding | CountsEncoding | HiddenEncoding, live: LiveTeacher, tmp_path: Path
) -> None:
    with SignalStore(tmp_path, StoreHeader(KEYS, encoding), writable=True) as store:
        with pytest.raises(InputError, match="cannot be of this teacher"):
            capture(live, TEXTS, [store])
        assert len(store) == 0


def test_a_first_token_is_never_a_target(live: LiveTeacher, tmp_path: Path) -> None:
    text = replace(TEXTS[0], target_mask=(True,) * len(TEXTS[0].input_ids))
    with pytest.raises(ValueError, match="nothing comes before the first token"):
        captured(tmp_path, "top_k", live, [text])
