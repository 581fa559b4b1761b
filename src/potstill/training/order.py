"""The order in which rows are trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

# Batches that are sorted by length together, at most: enough to save padding (2 % of 700 answers' tokens; with 8, 6 %), and few
# enough for the rows of a batch to be others in every epoch. Fewer rows than that keep their batches, in another order.
_POOL = 32


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
        size = self._batch_size
        pools = math.ceil(len(order) / (_POOL * size))
        pool = math.ceil(len(order) / max(pools, 1) / size) * size  # about equal, as a short one would save little
        ordered: list[int] = []
        for start in range(0, len(order), max(pool, 1)):
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
