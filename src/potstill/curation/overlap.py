"""Rules that compare rows with each other: duplicates, and rows that overlap with held-out ones.

A rule sees rows one after the other in file order, so that of several equal rows the first stays. Texts are compared by their
words, case and punctuation aside; what a row asks may have several parts (`Task.asked`), which must all agree.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from potstill.curation.rules import preview
from potstill.rows import Row
from potstill.tasks import Task

# An operator before a digit counts as a word: "5 - 3" is not "5 + 3".
_WORD = re.compile(r"\w+|[-+*/^=<>×÷](?=\s*\d)")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; of a text without any, such as an emoji, the text."""
    return _WORD.findall(text.lower()) or [text.strip()]


def _instructions(row: Row) -> str:
    return "\n".join(message.content for message in row.messages if message.role == "system")


class ExactDuplicate:
    """Another row asks the same, but for case and white space."""

    name = "exact_duplicate"

    def __init__(self, task: Task) -> None:
        self._task = task
        self._first: dict[bytes, str] = {}

    def reject(self, row: Row) -> str | None:
        given = (f"{message.role}:{' '.join(message.content.lower().split())}" for message in self._task.given(row))
        digest = blake2b("\0".join(given).encode(), digest_size=16).digest()
        if digest in self._first:
            return f"asks the same as row {self._first[digest]}"
        self._first[digest] = row.id
        return None


class NearDuplicate:
    """Another row asks nearly the same: the word 3-grams of each part have a Jaccard similarity of at least `threshold`.

    Candidates come from MinHash with locality-sensitive hashing (Broder 1997); the similarity of each is then computed exactly,
    so the hashing can miss a pair (one in 160 at the threshold) but never condemn one. What is alike in all parts is at least
    as alike as a whole, so one sketch of all parts finds every candidate.
    """

    name = "near_duplicate"

    def __init__(self, task: Task, threshold: float = 0.85) -> None:
        from rensa import RMinHashLSH

        self._task, self._threshold = task, threshold
        self._index = RMinHashLSH(threshold=threshold, num_perm=128, num_bands=16)
        self._kept: list[tuple[str, list[frozenset[str]], list[str]]] = []

    def reject(self, row: Row) -> str | None:
        from rensa import RMinHash

        texts = [_instructions(row), *self._task.asked(row)]
        parts = [_shingles(text) for text in texts]
        numbers = _NUMBER.findall("\n".join(texts)) if self._task.numbers_tell_apart else []
        sketch = RMinHash(num_perm=128, seed=42)
        sketch.update([f"{place}:{shingle}" for place, part in enumerate(parts) for shingle in sorted(part)])
        for key in self._index.query(sketch):
            other, their_parts, their_numbers = self._kept[key]
            if len(parts) != len(their_parts) or numbers != their_numbers:
                continue
            similarity = min(_jaccard(mine, theirs) for mine, theirs in zip(parts, their_parts, strict=True))
            if similarity >= self._threshold:
                return f"asks nearly the same as row {other} (similarity {similarity:.2f})"
        self._index.insert(len(self._kept), sketch)
        self._kept.append((row.id, parts, numbers))
        return None


def _shingles(text: str) -> frozenset[str]:
    words = words_of(text)
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / len(left | right)


class Contaminated:
    """The row asks what a held-out row asks, so the student would be examined on what it has seen.

    It does where it shares a run of `n` words with it (13 are the field's norm: Brown et al. 2020, arXiv:2005.14165, appendix
    C), or is shorter and equal word for word. Of a question in several parts one may match so, and the others must at least
    have half of their words in common. Runs that stand in more than a hundredth of the rows to be judged (at least three) are
    boilerplate of the data set, unless the whole prompt is equal.
    """

    name = "contaminated"

    def __init__(self, task: Task, held_out: Sequence[Row], rows: Sequence[Row], n: int = 13) -> None:
        self._task, self._n = task, n
        self._others = [(other.id, [frozenset(words_of(part)) for part in task.asked(other)]) for other in held_out]
        self._whole = {self._prompt(other): other.id for other in held_out}
        self._runs: dict[str, list[int]] = {}
        for number, other in enumerate(held_out):
            for run in set(self._runs_of(other)):
                self._runs.setdefault(run, []).append(number)
        common = Counter(run for row in rows for run in set(self._runs_of(row)) if run in self._runs)
        limit = max(2, len(rows) // 100)
        for run in [run for run, count in common.items() if count > limit]:
            del self._runs[run]

    def reject(self, row: Row) -> str | None:
        prompt = self._prompt(row)
        if prompt in self._whole:
            return f"asks the same as held-out row {self._whole[prompt]}"
        parts = [frozenset(words_of(part)) for part in self._task.asked(row)]
        for run in self._runs_of(row):
            for number in self._runs.get(run, ()):
                other, theirs = self._others[number]
                if len(parts) == len(theirs) and self._others_agree(run, parts, theirs):
                    return f"shares {preview(run.partition(':')[2])} with held-out row {other}"
        return None

    def _runs_of(self, row: Row) -> Iterator[str]:
        """All runs of `n` words in each part, and the whole of a shorter part; the part's number stands before each."""
        for place, part in enumerate(self._task.asked(row)):
            words = words_of(part)
            for start in range(max(1, len(words) - self._n + 1)):
                yield f"{place}:{' '.join(words[start : start + self._n])}"

    def _prompt(self, row: Row) -> str:
        return "\n".join(" ".join(words_of(part)) for part in (_instructions(row), *self._task.asked(row)))

    @staticmethod
    def _others_agree(run: str, parts: Sequence[frozenset[str]], theirs: Sequence[frozenset[str]]) -> bool:
        shared = int(run.partition(":")[0])
        pairs = enumerate(zip(parts, theirs, strict=True))
        return all(place == shared or _jaccard(mine, their) >= 0.5 for place, (mine, their) in pairs)
