"""Rules that keep one of several rows that ask the same, word for word or nearly so.

Rows are taken in file order, so that of several equal rows the first that is kept stays. Several answers to one row of the
user's, which is their `prompt_id` in meta, ask the same on purpose: among those, only equal answers are duplicates.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from dataclasses import dataclass

import numpy as np

from potstill.curation.rules import Fetch, answers_of
from potstill.curation.words import Batch, Hashes, Ints, groups, hash_text, prompt_of, words_of
from potstill.rows import Row
from potstill.tasks import Task

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def asked_again(row: Row, other: Row, task: Task) -> bool:
    """Whether both are answers to one row of the user's, and not the same answer."""
    if row.meta.get("prompt_id") is None or row.meta["prompt_id"] != other.meta.get("prompt_id"):
        return False
    if [words_of(text) for text in _targets(row, task)] != [words_of(text) for text in _targets(other, task)]:
        return True
    return bool(row.meta.get("rationale") != other.meta.get("rationale"))


def numbers_in(row: Row, task: Task) -> list[str]:
    """The numbers of a row's prompt, in order, where they tell rows apart; else none."""
    return _NUMBER.findall("\n".join(prompt_of(row, task))) if task.numbers_tell_apart else []


def _targets(row: Row, task: Task) -> list[str]:
    return [task.target(text, row) for text in answers_of(row, task)]


class ExactDuplicate:
    """Another row asks the same, but for case and white space."""

    name = "exact_duplicate"

    def __init__(self, task: Task) -> None:
        self._task = task
        self._digests: list[Hashes] = []
        self._indices: list[Ints] = []
        self._group: dict[int, int] = {}
        self._kept: dict[int, list[int]] = {}

    def observe(self, batch: Batch) -> None:
        self._digests.append(np.array([hash_text(self._key(row)) for row in batch.rows], dtype=np.uint64))
        self._indices.append(batch.indices)

    def settle(self, fetch: Fetch) -> None:
        self._fetch = fetch
        if self._indices:
            indices, found = np.concatenate(self._indices), groups(np.concatenate(self._digests))
            self._group = dict(zip(indices[found >= 0].tolist(), found[found >= 0].tolist(), strict=True))
        self._digests, self._indices = [], []

    def reject(self, index: int) -> str | None:
        group = self._group.get(index)
        if group is None or group not in self._kept:
            return None
        row = self._fetch(index)
        for other in map(self._fetch, self._kept[group]):
            if self._key(row) == self._key(other) and not asked_again(row, other, self._task):
                return f"asks the same as row {other.id}"
        return None

    def keep(self, index: int) -> None:
        if index in self._group:
            self._kept.setdefault(self._group[index], []).append(index)

    def _key(self, row: Row) -> str:
        return "\0".join(f"{message.role}:{' '.join(message.content.lower().split())}" for message in self._task.given(row))


@dataclass(frozen=True, slots=True)
class _Shape:
    """What near duplicates are compared by: the 3-word runs of each part of the prompt, and its numbers where they count."""

    row: Row
    parts: list[frozenset[str]]
    numbers: list[str]


class NearDuplicate:
    """Another row asks nearly the same: the word 3-grams of each part have a Jaccard similarity of at least `threshold`.

    Suspects come from MinHash with locality-sensitive hashing (Broder 1997), 128 bytes a row; the similarity of each is then
    computed from the texts, so the hashing can miss a pair (one in 160 at the threshold) but never condemn one. What is alike
    in all parts is at least as alike as a whole, so one sketch of all parts finds every suspect.
    """

    name = "near_duplicate"
    PERMUTATIONS, BANDS = 128, 16
    IN_A_BUCKET, COMPARED = 64, 32  # of rows that resemble each other by the thousand, only these are compared with a new one
    SHAPES = 4096

    def __init__(self, task: Task, threshold: float = 0.85) -> None:
        self._task, self._threshold = task, threshold
        self._bands: list[Hashes] = []
        self._indices: list[Ints] = []
        self._buckets: dict[int, list[int]] = {}
        self._kept: dict[int, list[int]] = {}
        self._shapes: OrderedDict[int, _Shape] = OrderedDict()

    def observe(self, batch: Batch) -> None:
        from rensa import RMinHash

        words = batch.words
        runs = words.runs(3)
        offsets = np.searchsorted(words.rows[runs.parts], np.arange(len(batch.rows) + 1)).astype(np.uint64)
        sketch = RMinHash.digest_matrix_from_flat_token_hashes(runs.hashes, offsets, self.PERMUTATIONS, 42)
        digests = np.array(sketch.to_rows(), dtype=np.uint64).reshape(len(batch.rows), self.BANDS, -1)
        powers = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, digests.shape[2] + 1, dtype=np.uint64)
        self._bands.append((digests * powers).sum(axis=2, dtype=np.uint64))
        self._indices.append(batch.indices)

    def settle(self, fetch: Fetch) -> None:
        """Which rows share a band with another; all others are out of suspicion."""
        self._fetch = fetch
        bands = np.concatenate([np.zeros((0, self.BANDS), np.uint64), *self._bands])
        indices = np.concatenate([np.zeros(0, np.int64), *self._indices])
        for band in range(self.BANDS):
            found = groups(bands[:, band])
            for index, group in zip(indices[found >= 0].tolist(), found[found >= 0].tolist(), strict=True):
                self._buckets.setdefault(index, []).append(group * self.BANDS + band)
        self._bands, self._indices = [], []

    def reject(self, index: int) -> str | None:
        suspects = self._suspects(index)
        if not suspects:
            return None
        mine = self._shape(index)
        for theirs in map(self._shape, suspects):
            if len(mine.parts) != len(theirs.parts) or mine.numbers != theirs.numbers:
                continue
            similarity = min(jaccard(left, right) for left, right in zip(mine.parts, theirs.parts, strict=True))
            if similarity >= self._threshold and not asked_again(mine.row, theirs.row, self._task):
                return f"asks nearly the same as row {theirs.row.id} (similarity {similarity:.2f})"
        return None

    def keep(self, index: int) -> None:
        for bucket in self._buckets.get(index, ()):
            kept = self._kept.setdefault(bucket, [])
            if len(kept) < self.IN_A_BUCKET:
                kept.append(index)

    def _suspects(self, index: int) -> list[int]:
        """Kept rows that share a band, those that share the most first."""
        shared = Counter(other for bucket in self._buckets.get(index, ()) for other in self._kept.get(bucket, ()))
        return [other for other, _ in shared.most_common(self.COMPARED)]

    def _shape(self, index: int) -> _Shape:
        """Read a row again; the latest ones are remembered."""
        if index in self._shapes:
            self._shapes.move_to_end(index)
            return self._shapes[index]
        row = self._fetch(index)
        parts = [_shingles(part) for part in prompt_of(row, self._task)]
        shape = self._shapes[index] = _Shape(row, parts, numbers_in(row, self._task))
        if len(self._shapes) > self.SHAPES:
            self._shapes.popitem(last=False)
        return shape


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """The share of all elements that both sets have."""
    return len(left & right) / len(left | right)


def _shingles(text: str) -> frozenset[str]:
    words = words_of(text)
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))

