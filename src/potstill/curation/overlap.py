"""The rule against rows that overlap with held-out ones, so that a student is not examined on what it has seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from potstill.curation.duplicates import jaccard
from potstill.curation.rules import Fetch, preview
from potstill.curation.words import Batch, Hashes, Ints, in_batches, words_of
from potstill.rows import Row
from potstill.tasks import Task


class Contaminated:
    """The row asks what a held-out row asks, so the student would be examined on what it has seen.

    It does where it shares a run of `n` words with it (13 are the field's norm: Brown et al. 2020, arXiv:2005.14165, appendix
    C; 8 are stricter: Chowdhery et al. 2022, arXiv:2204.02311), or is shorter and equal word for word. Of a question in several
    parts one may match so, and the others must at least have half of their words in common. Runs that stand in more than a
    hundredth of the rows to be judged (at least three, or ten thousand) are boilerplate of the data set, unless the whole
    prompt is equal; several answers to one row, which follow each other, are one row there.
    """

    name = "contaminated"
    BOILERPLATE = 10_000  # rows

    def __init__(self, task: Task, held_out: Sequence[Row], n: int = 13) -> None:
        self._task, self._n, self._held_out = task, n, held_out
        runs, numbers, wholes = self._read_held_out()
        order = np.argsort(runs, kind="stable")
        self._numbers = numbers[order]
        self._runs, self._first = np.unique(runs[order], return_index=True)
        self._filter = _Filter(self._runs)
        self._wholes = {value: number for number, value in reversed(list(enumerate(wholes.tolist())))}
        self._counts = np.zeros(len(self._runs), np.int64)
        self._hits: list[Ints] = []
        self._suspects: dict[int, set[int]] = {}
        self._equal: dict[int, int] = {}
        self._seen = 0
        self._prompt_id: str | None = None

    def _read_held_out(self) -> tuple[Hashes, Ints, Hashes]:
        """The runs of all held-out rows with the number of the row each is of, and the hash of each whole prompt."""
        runs, numbers, wholes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
        for first, rows in in_batches(self._held_out):
            batch = self._batch(rows, first)
            found = self._asked_runs(batch)
            runs.append(found[0])
            numbers.append(found[1])
            wholes.append(batch.words.whole(len(rows)))
        return np.concatenate(runs), np.concatenate(numbers), np.concatenate(wholes)

    def _batch(self, rows: Sequence[Row], first: int) -> Batch:
        return Batch(rows, np.arange(first, first + len(rows)), self._task)

    def _asked_runs(self, batch: Batch) -> tuple[Hashes, Ints]:
        """The runs of what the rows ask, instructions aside, and the number of the row of each."""
        found = batch.words.runs(self._n)
        asked = batch.words.places[found.parts] > 0
        return found.hashes[asked], batch.indices[batch.words.rows[found.parts[asked]]]

    def observe(self, batch: Batch) -> None:
        fresh = np.array([self._is_fresh(row) for row in batch.rows], dtype=bool)
        self._seen += int(fresh.sum())
        if not len(self._held_out):
            return
        for index, value in zip(batch.indices.tolist(), batch.words.whole(len(batch.rows)).tolist(), strict=True):
            if value in self._wholes:
                self._equal[index] = self._wholes[value]
        hashes, indices = self._asked_runs(batch)
        maybe = self._filter.maybe(hashes)
        hashes, indices = hashes[maybe], indices[maybe]
        run = np.minimum(np.searchsorted(self._runs, hashes), len(self._runs) - 1)
        hit = self._runs[run] == hashes
        pairs = np.unique((indices[hit] << 32) | run[hit])
        pairs = pairs[self._counts[pairs & 0xFFFFFFFF] <= self.BOILERPLATE]
        counted = pairs[np.isin(pairs >> 32, batch.indices[fresh])]
        self._counts += np.bincount(counted & 0xFFFFFFFF, minlength=len(self._counts))
        self._hits.append(pairs)

    def _is_fresh(self, row: Row) -> bool:
        """Whether this is the first row that answers its prompt."""
        before, self._prompt_id = self._prompt_id, row.meta.get("prompt_id")
        return self._prompt_id is None or self._prompt_id != before

    def settle(self, fetch: Fetch) -> None:
        """Runs that stand in many rows are forgotten; rows with another one are suspects."""
        self._fetch = fetch
        limit = min(max(2, self._seen // 100), self.BOILERPLATE)
        for pair in (pair for pairs in self._hits for pair in pairs[self._counts[pairs & 0xFFFFFFFF] <= limit].tolist()):
            self._suspects.setdefault(pair >> 32, set()).add(pair & 0xFFFFFFFF)
        self._hits = []

    def reject(self, index: int) -> str | None:
        if index not in self._equal and index not in self._suspects:
            return None
        row = self._fetch(index)
        other = self._held_out[self._equal[index]] if index in self._equal else None
        if other is not None and self._prompt(row) == self._prompt(other):
            return f"asks the same as held-out row {other.id}"
        return self._shared(row, self._suspects.get(index, set()))

    def keep(self, index: int) -> None: ...

    def _shared(self, row: Row, wanted: set[int]) -> str | None:
        """The first of these runs that stands in the row and in a held-out row that asks the like."""
        batch = self._batch([row], 0)
        parts = [words_of(part) for part in batch.prompts[0]]
        found, places = batch.words.runs(self._n), batch.words.places
        for number, (value, part) in enumerate(zip(found.hashes, found.parts.tolist(), strict=True)):
            run = int(np.searchsorted(self._runs, value))
            if places[part] == 0 or run not in wanted or self._runs[run] != value:
                continue
            start = number - int(np.searchsorted(found.parts, part))
            shared = parts[part][start : start + self._n]
            end = self._first[run + 1] if run + 1 < len(self._first) else len(self._numbers)
            for other in self._numbers[self._first[run] : end].tolist():
                if self._agrees(shared, int(places[part]), parts, self._held_out[other]):
                    return f"shares {preview(' '.join(shared))} with held-out row {self._held_out[other].id}"
        return None

    def _agrees(self, shared: Sequence[str], place: int, parts: Sequence[Sequence[str]], other: Row) -> bool:
        """Whether the words stand in that part of the other row too, and the other parts have half of their words in common."""
        theirs = [[], *(words_of(part) for part in self._task.asked(other))]
        if len(parts) != len(theirs) or (len(shared) < self._n and theirs[place] != list(shared)):
            return False
        if f" {' '.join(shared)} " not in f" {' '.join(theirs[place])} ":
            return False
        others = [number for number in range(1, len(parts)) if number != place]
        return all(jaccard(frozenset(parts[number]), frozenset(theirs[number])) >= 0.5 for number in others)

    def _prompt(self, row: Row) -> list[list[str]]:
        return [words_of(part) for part in self._batch([row], 0).prompts[0]]


class _Filter:
    """Tells at once that most hashes are not in a set; a table of bytes that the processor's cache holds."""

    def __init__(self, hashes: Hashes) -> None:
        bits = int(np.clip(np.ceil(np.log2(16 * len(hashes) + 1)), 10, 24))
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, dtype=bool)
        self._table[hashes >> self._shift] = True

    def maybe(self, hashes: Hashes) -> NDArray[np.bool_]:
        return np.asarray(self._table[hashes >> self._shift])
