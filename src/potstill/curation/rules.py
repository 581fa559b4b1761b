"""The rules that keep or reject an answered row by itself: one small class each, with a name and a reason in words.

Rules that compare rows with each other are in `overlap.py`.
"""

from __future__ import annotations

from typing import Protocol

from potstill.rows import Row
from potstill.tasks import Task, looks_refused


class Rule(Protocol):
    """One reason to reject a row."""

    name: str

    def reject(self, row: Row) -> str | None:
        """Why the row is rejected, for a person to read; None keeps it."""
        ...


def answers_of(row: Row, task: Task) -> list[str]:
    """The teacher's turns of a generated row, in order."""
    return [message.content for message in row.messages if message.role == "assistant"][-task.turns(row) :]


def preview(text: str, limit: int = 80) -> str:
    """The beginning of a text on one line, quoted."""
    line = " ".join(text.split())
    return repr(line if len(line) <= limit else line[: limit - 1] + "…")


class Refused:
    """The teacher declined, or its endpoint filtered the answer; unless the gold answer declines too."""

    name = "refused"

    def __init__(self, task: Task) -> None:
        self._task = task

    def reject(self, row: Row) -> str | None:
        if "refused" in row.meta.get("finish_reasons", ()):
            return "the endpoint filtered or refused the answer"
        declined = next((text for text in answers_of(row, self._task) if looks_refused(text)), None)
        if declined is None or any(map(looks_refused, row.references)):
            return None
        return f"the teacher declined to answer: {preview(declined)}"


class Truncated:
    """The answer was cut off by the token limit: a student would learn to stop in the middle."""

    name = "truncated"

    def __init__(self, task: Task) -> None:
        self._task = task

    def reject(self, row: Row) -> str | None:
        reasons = row.meta.get("finish_reasons", ())
        if self._task.tolerates_cut or "length" not in reasons:
            return None
        answer = answers_of(row, self._task)[reasons.index("length")]
        return f"cut off at generation.max_tokens: it ends with {preview(answer[-60:])}"


class Unparsable:
    """The answer does not have the form that the task asks for."""

    name = "unparsable"

    def __init__(self, task: Task) -> None:
        self._task = task

    def reject(self, row: Row) -> str | None:
        for text in answers_of(row, self._task):
            parsed = self._task.parse(text, row)
            if parsed.value is None:
                return f"{parsed.reason}: {preview(text)}"
        return None


class ContradictsGold:
    """The answer differs from the gold answer, where the task can tell."""

    name = "contradicts_gold"

    def __init__(self, task: Task) -> None:
        self._task = task

    def reject(self, row: Row) -> str | None:
        text = answers_of(row, self._task)[-1]
        if self._task.verify(text, row) is not False:
            return None
        found = self._task.parse(text, row).value
        golds = [self._task.parse(gold, row).value or gold for gold in row.references]
        return f"found {preview(str(found))}, the gold answer is {preview(' | '.join(golds))}"
