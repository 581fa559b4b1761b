"""The order in which rows are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

_POOL = 8  # batches that are sorted by length together: long enough to save padding, short enough to stay random


class GroupedByLength(Sampler[int]):  # type: ignore[misc]
    """Indices in which each run of `batch_size` has rows of about the same length, the runs in random order.

    The order is a function of seed and epoch alone, unlike that of transformers' own sampler, which also goes from long to
    short within an epoch; so a training that resumes within an epoch meets the rows that are left, and no others.

    Several processes take turns: the first batch is the first process's, the second the second's. All get the same number of
    whole batches, which takes fillers behind the last row: indices from `len(lengths)` on.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, processes: int = 1) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self.fillers = fillers(len(lengths), batch_size, processes)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._lengths) + self.fillers

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self.epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        pool, size = _POOL * self._batch_size, self._batch_size
        ordered: list[int] = []
        for start in range(0, len(order), pool):
            ordered += sorted(order[start : start + pool], key=self._lengths.__getitem__)
        batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        # An incomplete batch must stay last: the loader cuts this sequence every `batch_size` indices.
        whole = len(order) // size
        for index in torch.randperm(whole, generator=generator).tolist():
            yield from batches[index]
        for batch in batches[whole:]:
            yield from batch
        yield from range(len(order), len(self))


def fillers(rows: int, batch_size: int, processes: int) -> int:
    """How many rows without targets make all processes' batches whole and equally many; one process needs none."""
    return -rows % (batch_size * processes) if processes > 1 else 0
