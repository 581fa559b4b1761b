"""Texts and a tiny teacher to capture, and a capture that a test can kill: python capturing.py FOLDER FORM."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch

from potstill.signals import capture as capture_module
from potstill.signals.capture import CaptureProgress, CaptureText, capture
from potstill.signals.counts import CountsEncoding
from potstill.signals.encoding import Encoding
from potstill.signals.header import StoreHeader
from potstill.signals.hidden import HiddenEncoding
from potstill.signals.keys import TextKeys
from potstill.signals.store import SignalStore
from potstill.signals.teacher import LiveTeacher
from potstill.signals.top_k import TopKEncoding
from signals.conftest import VOCABULARY, tiny_network

KEYS = TextKeys({"folder": "ef" * 16}, "{{ messages }}")
SMALL_BATCH_TOKENS, SMALL_TILE_BYTES = 100, 4 * 7 * VOCABULARY
FORMS: dict[str, Encoding] = {
    "top_k": TopKEncoding(VOCABULARY, (0.7, 1.0, 2.0)), "counts": CountsEncoding(VOCABULARY, 0.7),
    "hidden": HiddenEncoding((0, 2), 32),
}


def teacher() -> LiveTeacher:
    torch.set_num_threads(1)
    return LiveTeacher(tiny_network(), bfloat16=False)


def some_texts(count: int = 30) -> list[CaptureText]:
    """Texts of 4 to 40 tokens with the later half or so as targets, one of them without a target."""
    chance = random.Random(5)
    made = []
    for number in range(count):
        length = chance.randrange(4, 41)
        ids = tuple(chance.randrange(3, VOCABULARY) for _ in range(length))
        targets = 0 if number == 7 else chance.randrange(1, length)
        made.append((ids, (False,) * (length - targets) + (True,) * targets))
    return [CaptureText(*text, key) for text, key in zip(made, KEYS.of(made), strict=True)]


def tell(progress: CaptureProgress) -> None:
    sys.stdout.write(f"{progress.texts}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    capture_module.BATCH_TOKENS, capture_module.TILE_BYTES = SMALL_BATCH_TOKENS, SMALL_TILE_BYTES
    with SignalStore(Path(sys.argv[1]), StoreHeader(KEYS, FORMS[sys.argv[2]]), writable=True) as opened:
        capture(teacher(), some_texts(), [opened], on_progress=tell)
