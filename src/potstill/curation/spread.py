"""Rules on how rows spread: answers of unheard-of length, and groups of rows that outnumber the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from potstill.curation.rules import Fetch, answers_of
from potstill.curation.words import Batch, hash_text
from potstill.rows import Row
from potstill.tasks import Task


class LengthOutlier:
    """The answer is far longer or far shorter than the others.

    Lengths are compared by their logarithm: a row is an outlier where it is more than `deviations` robust standard deviations
    (1.4826 times the median absolute deviation: Iglewicz and Hoaglin 1993) from the median, and at least `factor` times as long
    or as short. Silent where the answer comes from a closed set, and among fewer than `least` rows.
    """

    name = "length_outlier"

    def __init__(self, task: Task, deviations: float = 4.5, factor: float = 4.0, least: int = 50) -> None:
        self._task, self._deviations, self._factor, self._least = task, deviations, factor, least
        self._indices: list[int] = []
        self._lengths: list[int] = []
        self._outliers: dict[int, int] = {}
        self._median = 0.0

    def observe(self, batch: Batch) -> None:
        for index, row in zip(batch.indices.tolist(), batch.rows, strict=True):
            if not self._task.choices(row):
                self._indices.append(index)
                self._lengths.append(max(1, sum(map(len, answers_of(row, self._task)))))

    def settle(self, fetch: Fetch) -> None:
        if len(self._lengths) >= self._least:
            logs = np.log(self._lengths)
            self._median = float(np.median(logs))
            away = np.abs(logs - self._median)
            limit = max(math.log(self._factor), self._deviations * 1.4826 * float(np.median(away)))
            self._outliers = {self._indices[place]: self._lengths[place] for place in np.flatnonzero(away > limit).tolist()}
        self._indices, self._lengths = [], []

    def reject(self, index: int) -> str | None:
        length = self._outliers.get(index)
        if length is None:
            return None
        usual = math.exp(self._median)
        how = "longer" if length > usual else "shorter"
        return f"the answer is far {how} than others: {length:,} characters, {usual:,.0f} are usual"

    def keep(self, index: int) -> None: ...


class Unbalanced:
    """Its group has more rows than `ratio` times the smallest group that has at least `SMALLEST`.

    Which rows of a group stay is decided by a hash of what they ask, so that a row that is added moves few others. It sees
    last of all rules which rows are kept.
    """

    name = "unbalanced"
    SMALLEST = 8

    def __init__(self, task: Task, by: str, ratio: float) -> None:
        self._task, self._by, self._ratio = task, by, ratio
        self._numbers: dict[str, int] = {}
        self._group: dict[int, int] = {}
        self._rank: dict[int, int] = {}
        self.counts: Counter[str] = Counter()

    def observe(self, batch: Batch) -> None:
        for index, row, prompt in zip(batch.indices.tolist(), batch.rows, batch.prompts, strict=True):
            group = self.group_of(row)
            if group is not None:
                self._group[index] = self._numbers.setdefault(group, len(self._numbers))
                self._rank[index] = hash_text("\0".join(prompt))

    def group_of(self, row: Row) -> str | None:
        """The group of a row; rows without one are neither counted nor thinned out."""
        if self._by == "label":
            return self._task.parse(answers_of(row, self._task)[-1], row).value
        value = row.meta.get(self._by)
        return None if value is None else str(value)

    def thin(self, kept: Sequence[int]) -> dict[int, str]:
        """Which of the kept rows are too many, and why."""
        members: dict[int, list[int]] = {}
        for index in kept:
            if index in self._group:
                members.setdefault(self._group[index], []).append(index)
        sizes = [len(rows) for rows in members.values() if len(rows) >= self.SMALLEST]
        if not sizes:
            return {}
        most, names = int(self._ratio * min(sizes)), list(self._numbers)
        return {
            index: f"{names[group]!r} has {len(rows)} rows, more than {most} ({self._ratio:g} times the smallest group)"
            for group, rows in members.items()
            for index in sorted(rows, key=self._rank.__getitem__)[most:]
        }
