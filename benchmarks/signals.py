"""Are a teacher's signals small on disk, quickly read, and captured at little more than the cost of the forward pass?

SmolLM2-135M, the embedded model, on its own answers to real prompts (bitext's, of the folder that POTSTILL_DATA names; see
tests/conftest.py), which llama.cpp writes at temperature 0.7:

    bytes     bytes a target token on disk, headers included: at most 160 for top-k (98 % of the mass or 64 entries, tails at
              temperature 1) and 80 for 200 draws, where ids and half-precision logits of 64 tokens take 384
    reading   a store of a million target tokens: opened in under a second, and at least 200,000 tokens/s read in batches of 8
              texts in random order, ready for the loss
    capture   target tokens/s of the capture with each encoding, beside the same batches through the teacher and its head with
              nothing kept: at most 1.2 times as long

Finished arms and the answers are kept in --results; the same command goes on where it stopped. Two CPU cores take about five
minutes. The machine should have nothing else to do.

    python benchmarks/signals.py [--arm bytes|reading|capture] [--rows 96] [--results FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from potstill.catalog import ResolvedModel, resolve
from potstill.inference import model_identity, open_engine
from potstill.inference.protocol import Request, Sampling
from potstill.rows import Message, Row, read_rows, write_rows
from potstill.signals import capture as capturing
from potstill.signals.capture import CaptureText, capture
from potstill.signals.counts import CountsEncoding
from potstill.signals.encoding import Encoding
from potstill.signals.header import StoreHeader
from potstill.signals.keys import TextKeys
from potstill.signals.records import Record
from potstill.signals.source import TargetBatch
from potstill.signals.store import SignalStore
from potstill.signals.teacher import LiveTeacher, open_teacher
from potstill.signals.top_k import TopKEncoding
from potstill.spec import ModelSpec
from potstill.templates import ChatTemplate
from potstill.training.collator import tokenise_rows

ROOT = Path(__file__).resolve().parent.parent
DATA = (ROOT / os.environ.get("POTSTILL_DATA", "../shared/data")).resolve()
VOCABULARY = 49_152
ENCODINGS: dict[str, Encoding] = {"top_k": TopKEncoding(VOCABULARY), "counts": CountsEncoding(VOCABULARY)}
MOST_BYTES = {"top_k": 160, "counts": 80}
STORED_TOKENS, LEAST_RATE, MOST_OPENING_S = 1_000_000, 200_000, 1.0
MOST_TIMES, ROUNDS, READ_TEXTS = 1.2, 5, 8

Result = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--arm", choices=("bytes", "reading", "capture"))
    parser.add_argument("--rows", type=int, default=96, help="prompts to answer")
    parser.add_argument("--results", type=Path, default=Path("runs/benchmark-signals"))
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    arms: dict[str, Callable[[Subject], Result]] = {"bytes": size, "reading": reading, "capture": cost}
    subject, held = Subject(options.results, options.rows), True
    for name, arm in arms.items():
        if options.arm not in (None, name):
            continue
        stored = options.results / f"{name}-{options.rows}.json"
        if not stored.exists():
            stored.write_text(json.dumps(arm(subject), indent=2))
        held = show(name, json.loads(stored.read_text())) and held
    print("holds" if held else "DOES NOT HOLD")
    return 0 if held else 1


class Subject:
    """The teacher and its texts, made where an arm first needs them."""

    def __init__(self, results: Path, rows: int) -> None:
        self.model: ResolvedModel = resolve(ModelSpec(model="smollm2-135m-instruct"))
        self._answers = results / f"answers-{rows}.jsonl"
        self._rows = rows
        self._opened: tuple[LiveTeacher, list[CaptureText]] | None = None
        self.keys = TextKeys(model_identity(self.model), ChatTemplate.from_gguf(Path(str(self.model.path))).source)

    def opened(self) -> tuple[LiveTeacher, list[CaptureText]]:
        if self._opened is None:
            if not self._answers.exists():
                write_rows(self._answers, asyncio.run(answers(self.model, self._rows)))
            teacher, tokenizer, _ = open_teacher(self.model)
            template = ChatTemplate.from_gguf(Path(str(self.model.path)))
            rows = list(read_rows(self._answers))
            tokenised = tokenise_rows(rows, template, tokenizer, all_turns=False, max_length=1024).texts
            texts = [(text.input_ids, text.target_mask) for text in tokenised]
            self._opened = teacher, [CaptureText(*text, key) for text, key in zip(texts, self.keys.of(texts), strict=True)]
        return self._opened

    def header(self, encoding: Encoding) -> StoreHeader:
        return StoreHeader(self.keys, encoding)


async def answers(model: ResolvedModel, count: int) -> list[Row]:
    """The teacher's own answers; one that was cut off is left out."""
    engine = open_engine(model, concurrency=8, context=512)
    sampling = Sampling(temperature=0.7, max_tokens=256)

    async def ask(number: int, line: str) -> Row | None:
        prompt = tuple(Message(turn["role"], turn["content"]) for turn in json.loads(line)["messages"][:-1])
        reply = engine.parse(await engine.generate(Request(prompt, sampling)))
        return Row(f"r{number}", (*prompt, Message("assistant", reply.text))) if reply.finish_reason == "stop" else None

    with (DATA / "conversation" / "bitext.train.jsonl").open() as lines:
        rows = await asyncio.gather(*(ask(number, line) for number, line in enumerate(islice(lines, count))))
    await engine.aclose()
    return [row for row in rows if row is not None]


def size(subject: Subject) -> Result:
    """Bytes a target token of a store that is filled by a capture."""
    teacher, texts = subject.opened()
    tokens = targets(texts)
    result: Result = {"said": [f"{len(texts)} texts, {tokens} target tokens"], "bars": []}
    for name, encoding in ENCODINGS.items():
        with folder() as place, SignalStore(place, subject.header(encoding), writable=True) as store:
            capture(teacher, texts, [store])
            signal = store.read([text.key for text in texts], 1.0)
            entries = (signal.logprobs > -torch.inf) if name == "top_k" else (signal.shares > 0)
            on_disk = sum(path.stat().st_size for path in place.glob("*.sig"))
        result["said"].append(f"{name}: {entries.sum(1).float().mean():.1f} entries a token")
        result["bars"].append(at_most(f"{name}: bytes a token", on_disk / tokens, MOST_BYTES[name]))
    return result


def reading(subject: Subject) -> Result:
    """A store of a million tokens: the captured records over and over, under keys of their own."""
    teacher, texts = subject.opened()
    result: Result = {"said": [], "bars": []}
    for name, encoding in ENCODINGS.items():
        with folder() as place:
            keys = fill(place, subject.header(encoding), teacher, texts)
            started = time.perf_counter()
            store = SignalStore(place)
            opening_s = time.perf_counter() - started
            rate = statistics.median(read_all(store, keys, seed) for seed in range(ROUNDS))
        result["said"].append(f"{name}: {len(keys)} texts, opened in {opening_s:.3f} s, read at {rate:,.0f} tokens/s")
        result["bars"] += [
            at_most(f"{name}: seconds to open", opening_s, MOST_OPENING_S),
            at_least(f"{name}: tokens/s read", rate, LEAST_RATE),
        ]
    return result


def fill(place: Path, header: StoreHeader, teacher: LiveTeacher, texts: Sequence[CaptureText]) -> list[str]:
    with SignalStore(place, header, writable=True) as store:
        capture(teacher, texts, [store])
        bodies = [store._bodies([text.key])[0] for text in texts]
        records = [(body.positions, bytes(body.content)) for body in bodies]
        keys: list[str] = []
        for turn in range(STORED_TOKENS // targets(texts)):
            again = [blake2b(f"{turn} {text.key}".encode(), digest_size=16).hexdigest() for text in texts]
            store.append([Record(key, *record) for key, record in zip(again, records, strict=True)])
            keys += again
    return keys


def read_all(store: SignalStore, keys: Sequence[str], seed: int) -> float:
    """Tokens a second of about a fifth of the store, in random order."""
    order = random.Random(seed).sample(keys, len(keys) // ROUNDS)
    started, tokens = time.perf_counter(), 0
    for start in range(0, len(order), READ_TEXTS):
        tokens += len(store.read(order[start : start + READ_TEXTS], 1.0))
    return tokens / (time.perf_counter() - started)


def cost(subject: Subject) -> Result:
    """Everybody takes turns, so that a machine that slows down slows all of them."""
    teacher, texts = subject.opened()
    tokens = targets(texts)
    seconds: dict[str, list[float]] = {name: [] for name in ("plain", *ENCODINGS)}
    for turn in range(1 + ROUNDS):
        for name, times in seconds.items():
            started = time.perf_counter()
            if name == "plain":
                plain_pass(teacher, texts)
            else:
                with folder() as place, SignalStore(place, subject.header(ENCODINGS[name]), writable=True) as store:
                    capture(teacher, texts, [store])
            if turn:  # the first one warms up
                times.append(time.perf_counter() - started)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "said": [f"{name}: {tokens / seconds_:,.0f} target tokens/s" for name, seconds_ in median.items()],
        "bars": [at_most(f"{name} / plain forward pass", median[name] / median["plain"], MOST_TIMES) for name in ENCODINGS],
    }


def plain_pass(teacher: LiveTeacher, texts: Sequence[CaptureText]) -> None:
    """The capture's batches and tiles of logits, of which nothing is kept."""
    ordered = sorted(texts, key=lambda text: (-len(text.input_ids), text.key))
    for batch in capturing._batches(ordered):
        tensors: TargetBatch = capturing._as_batch(batch, teacher.device)
        for _ in capturing._tiles(teacher.signal(tensors, 1.0), VOCABULARY):
            pass


def targets(texts: Sequence[CaptureText]) -> int:
    return sum(sum(text.target_mask) for text in texts)


def show(name: str, result: Result) -> bool:
    print(name)
    for line in result["said"]:
        print(f"  {line}")
    for bar in result["bars"]:
        verdict = "holds" if bar["holds"] else "does not hold"
        print(f"  {bar['what']}: {bar['figure']:,.3f}, bar {bar['bar']}: {verdict}", flush=True)
    return all(bar["holds"] for bar in result["bars"])


def at_least(what: str, figure: float, bar: float) -> Result:
    return {"what": what, "figure": figure, "bar": f"at least {bar:,}", "holds": figure >= bar}


def at_most(what: str, figure: float, bar: float) -> Result:
    return {"what": what, "figure": figure, "bar": f"at most {bar:,}", "holds": figure <= bar}


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="potstill-benchmark-") as place:
        yield Path(place)


if __name__ == "__main__":
    sys.exit(main())
