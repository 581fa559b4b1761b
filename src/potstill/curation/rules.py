"""The rules that keep or reject an answered row: one small class each, with a name and a reason in words.

A rule sees rows one after the other in file order and says None (keep) or why not. Rules that compare rows with each other
remember what they kept, so that of several equal rows the first stays.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Protocol

from potstill.rows import Message, Row
from potstill.tasks import Task, looks_refused

_WORD = re.compile(r"\w+", re.UNICODE)


class Rule(Protocol):
    """One reason to reject a row."""

    name: str

    def reject(self, row: Row) -> str | None:
        """Why the row is rejected, for a person to read; None keeps it."""
        ...


def answers_of(row: Row) -> list[str]:
    """The teacher's turns of a generated row, in order."""
    count = len(row.meta.get("finish_reasons", ())) or 1
    return [message.content for message in row.messages if message.role == "assistant"][-count:]


def prompt_of(row: Row) -> str:
    """What the user says in a row: all user turns, without the instructions of the system prompt."""
    return "\n".join(message.content for message in row.messages if message.role == "user")


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def preview(text: str, limit: int = 80) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= limit else line[: limit - 1] + "…")


class Refused:
    """The teacher declined, or its endpoint filtered the answer."""

    name = "refused"

    def reject(self, row: Row) -> str | None:
        if "refused" in row.meta.get("finish_reasons", ()):
            return "the endpoint filtered or refused the answer"
        declined = next((text for text in answers_of(row) if looks_refused(text)), None)
        return None if declined is None else f"the teacher declined to answer: {preview(declined)}"


class Truncated:
    """The answer was cut off by the token limit: a student would learn to stop in the middle."""

    name = "truncated"

    def __init__(self, task: Task) -> None:
        self._task = task

    def reject(self, row: Row) -> str | None:
        if self._task.tolerates_cut or "length" not in row.meta.get("finish_reasons", ()):
            return None
        return f"cut off at generation.max_tokens: it ends with {preview(answers_of(row)[-1][-60:])}"


class Unparsable:
    """The answer does not have the form that the task asks for."""

    name = "unparsable"

    def __init__(self, task: Task) -> None:
        self._task = task

    def reject(self, row: Row) -> str | None:
        for text in answers_of(row):
            parsed = self._task.parse(text, row)
            if parsed.value is None:
                return f"{parsed.reason or 'it has no answer'}: {preview(text)}"
        return None


class ContradictsGold:
    """The answer differs from the gold answer, where the task can tell."""

    name = "contradicts_gold"

    def __init__(self, task: Task) -> None:
        self._task = task

    def reject(self, row: Row) -> str | None:
        text = answers_of(row)[-1]
        if self._task.verify(text, row) is not False:
            return None
        found = self._task.parse(text, row).value
        return f"found {preview(str(found))}, the gold answer is {preview(' | '.join(row.references))}"


class ExactDuplicate:
    """Another row asks the same, but for case and white space."""

    name = "exact_duplicate"

    def __init__(self) -> None:
        self._first: dict[bytes, str] = {}

    def reject(self, row: Row) -> str | None:
        asked = [message for message in row.messages if message.role != "assistant"]
        digest = blake2b(_normal(asked).encode(), digest_size=16).digest()
        first = self._first.setdefault(digest, row.id)
        return None if first == row.id else f"asks the same as row {first}"


def _normal(messages: Sequence[Message]) -> str:
    return "\x00".join(f"{message.role}:{' '.join(message.content.lower().split())}" for message in messages)


class NearDuplicate:
    """Another row asks nearly the same: word 3-gram Jaccard similarity of the user's turns of at least `threshold`.

    Candidates come from MinHash with locality-sensitive hashing (Broder 1997); the similarity of each is then computed exactly,
    so the hashing can miss a pair but never condemn one.
    """

    name = "near_duplicate"

    def __init__(self, threshold: float = 0.85) -> None:
        from rensa import RMinHashLSH

        self._threshold = threshold
        self._index = RMinHashLSH(threshold=threshold, num_perm=128, num_bands=16)
        self._rows: list[tuple[str, frozenset[str]]] = []

    def reject(self, row: Row) -> str | None:
        from rensa import RMinHash

        words = words_of(prompt_of(row))
        shingles = frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))
        sketch = RMinHash(num_perm=128, seed=42)
        sketch.update(sorted(shingles))
        for key in self._index.query(sketch):
            other, theirs = self._rows[key]
            similarity = len(shingles & theirs) / len(shingles | theirs)
            if similarity >= self._threshold:
                return f"asks nearly the same as row {other} (similarity {similarity:.2f})"
        self._index.insert(len(self._rows), sketch)
        self._rows.append((row.id, shingles))
        return None


class Contaminated:
    """The row shares a run of `n` words with a held-out row, so the student would be examined on what it has seen.

    13 words are the field's norm. Runs that stand in more than a hundredth of the rows to be judged (at least three) are
    boilerplate of the data set, not a sign of overlap. Shorter prompts count where they are equal word for word.
    """

    name = "contaminated"

    def __init__(self, held_out: Iterable[Row], rows: Sequence[Row], n: int = 13) -> None:
        self._n = n
        common = Counter(run for row in rows for run in set(self._runs(row)))
        limit = max(2, len(rows) // 100)
        self._held_out: dict[str, str] = {}
        for other in held_out:
            for run in self._runs(other):
                if common[run] <= limit or len(run.split()) < n:
                    self._held_out.setdefault(run, other.id)

    def _runs(self, row: Row) -> list[str]:
        words = words_of(prompt_of(row))
        if len(words) < self._n:
            return [" ".join(words)]
        return [" ".join(words[i : i + self._n]) for i in range(len(words) - self._n + 1)]

    def reject(self, row: Row) -> str | None:
        for run in self._runs(row):
            other = self._held_out.get(run)
            if other is not None:
                return f"shares {preview(run)} with held-out row {other}"
        return None
