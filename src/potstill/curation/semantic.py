"""The rule that keeps one of several rows that mean the same, as an embedding model tells it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from potstill.curation.duplicates import asked_again, numbers_in
from potstill.curation.rules import Fetch
from potstill.curation.words import Batch
from potstill.tasks import Task

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class SemanticDuplicate:
    """Another row means the same: in each part of the prompt the embeddings have a cosine of at least `threshold`.

    Instructions are a part too. Where numbers tell rows apart, rows with other numbers are others. Costs 2 bytes a dimension,
    part and row of memory, and the product of each pair of rows, 1,024 rows at a time.
    """

    name = "semantic_duplicate"
    BLOCK = 1024
    CANDIDATES = 64  # of rows that resemble each other by the thousand, only the first are candidates

    def __init__(self, task: Task, embed: Embed, threshold: float) -> None:
        self._task, self._embed, self._threshold = task, embed, threshold
        self._parts: list[list[NDArray[np.float16]]] = []
        self._indices: list[int] = []
        self._near: dict[int, list[tuple[float, int]]] = {}
        self._kept: set[int] = set()

    def observe(self, batch: Batch) -> None:
        """Embed the parts of all prompts. A part that a row lacks has a direction of its own, which only such rows share."""
        places = max(len(self._parts), *(len(prompt) for prompt in batch.prompts))
        texts = [[prompt[place] if place < len(prompt) else "" for prompt in batch.prompts] for place in range(places)]
        for place, column in enumerate(texts):
            given = list(dict.fromkeys(text for text in column if text.strip()))
            found = dict(zip(given, self._embed(given), strict=True)) if given else {}
            size = len(next(iter(found.values()))) if found else 1
            vectors = np.zeros((len(column), size + 1), np.float16)
            for number, text in enumerate(column):
                if text in found:
                    vectors[number, :size] = found[text]
                else:
                    vectors[number, size] = 1
            while len(self._parts) <= place:
                self._parts.append([])
            self._parts[place].append(vectors)
        self._indices.extend(batch.indices.tolist())

    def settle(self, fetch: Fetch) -> None:
        """Find for each row those before it that mean the same."""
        self._fetch = fetch
        parts = [_joined(part, len(self._indices)) for part in self._parts]
        for first in range(0, len(self._indices), self.BLOCK):
            rows = slice(first, first + self.BLOCK)
            for other in range(0, first + self.BLOCK, self.BLOCK):
                columns = slice(other, other + self.BLOCK)
                similar = np.min([_products(part, rows, columns) for part in parts], axis=0)
                before = np.tril(similar, -1) if other == first else similar
                for row, column in np.argwhere(before >= self._threshold).tolist():
                    near = self._near.setdefault(self._indices[first + row], [])
                    if len(near) < self.CANDIDATES:
                        near.append((float(similar[row, column]), self._indices[other + column]))
        self._parts, self._indices = [], []

    def reject(self, index: int) -> str | None:
        candidates = sorted((entry for entry in self._near.get(index, ()) if entry[1] in self._kept), reverse=True)
        if not candidates:
            return None
        row = self._fetch(index)
        for similarity, number in candidates:
            other = self._fetch(number)
            if numbers_in(row, self._task) == numbers_in(other, self._task) and not asked_again(row, other, self._task):
                return f"means the same as row {other.id} (similarity {similarity:.2f})"
        return None

    def keep(self, index: int) -> None:
        self._kept.add(index)


def _products(part: NDArray[np.float16], rows: slice, columns: slice) -> NDArray[np.float32]:
    return np.asarray(part[rows].astype(np.float32) @ part[columns].astype(np.float32).T)


def _joined(batches: list[NDArray[np.float16]], rows: int) -> NDArray[np.float16]:
    """One array of a part of all rows; in batches of which no row has the part, every row lacks it."""
    size = max(batch.shape[1] for batch in batches)
    joined = np.zeros((rows, size), np.float16)
    joined[:, -1] = 1
    first = rows - sum(map(len, batches))
    for batch in batches:
        part = joined[first : first + len(batch)]
        part[:, -1] = batch[:, -1]
        part[:, : batch.shape[1] - 1] = batch[:, :-1]
        first += len(batch)
    return joined
