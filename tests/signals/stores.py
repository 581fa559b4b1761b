"""Stores of random signals, and a writer that a test can kill: python stores.py FOLDER."""

from __future__ import annotations

import sys
from hashlib import blake2b
from pathlib import Path

import torch

from potstill.signals.header import StoreHeader
from potstill.signals.keys import TextKeys
from potstill.signals.records import Record
from potstill.signals.store import SignalStore
from potstill.signals.top_k import TopKEncoding

VOCABULARY = 300
HEADER = StoreHeader(TextKeys({"gguf": "ab" * 16}, "{{ messages }}"), TopKEncoding(VOCABULARY, (1.0, 2.0), top=8))


def key_of(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=16).hexdigest()


def record_of(number: int, header: StoreHeader = HEADER) -> Record:
    """The signals of text `number`: 1 to 9 positions that are its own."""
    generator = torch.Generator().manual_seed(number)
    positions = 1 + number % 9
    assert isinstance(header.encoding, TopKEncoding)
    logits, starts = torch.randn(positions, VOCABULARY, generator=generator), torch.rand(positions, generator=generator)
    arrays = header.encoding.select(logits * 3, starts.double())
    return Record(key_of(number), positions, header.encoding.pack(*arrays))


def write_for_ever(folder: Path) -> None:
    """Batches of three texts; says how many it has kept after each."""
    with SignalStore(folder, HEADER, writable=True) as store:
        number = len(store)
        while True:
            store.append([record_of(number + i) for i in range(3)])
            number += 3
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    write_for_ever(Path(sys.argv[1]))
