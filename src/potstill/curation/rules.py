"""The rules that keep or reject an answered row by itself: one small class each, with a name and a reason in words.

Rules on what an answer says and how are in `text_rules.py` and `personal_data.py`; rules that compare rows with each other in
`overlap.py`, `duplicates.py` and `spread.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from potstill.curation.words import Batch
from potstill.rows import Row
from potstill.tasks import Task, looks_refused

Fetch = Callable[[int], Row]


class Rule(Protocol):
    """One reason to reject a row that the row itself tells."""

    name: str

    def reject(self, row: Row) -> str | None:
        """Why the row is rejected, for a person to read; None keeps it."""
        ...


class CorpusRule(Protocol):
    """One reason to reject a row that only shows among the other rows.

    It sees all rows once (`observe`), then says of each, in order, whether it is rejected (`reject`), and is told which ones
    were kept (`keep`). Between the two it holds hashes and numbers, not texts.
    """

    name: str

    def observe(self, batch: Batch) -> None:
        """Look at rows that no rule on single rows rejects."""
        ...

    def settle(self, fetch: Fetch) -> None:
        """All rows have been seen; `fetch` reads the one of a number again."""
        ...

    def reject(self, index: int) -> str | None:
        """Why the row of that number is rejected; None keeps it."""
        ...

    def keep(self, index: int) -> None:
        """The row of that number is kept."""
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


class LowScore:
    """What was noted of the answer when it was chosen, such as the share of votes for it, is less than the job asks for.

    Rows of which nothing was noted are kept.
    """

    def __init__(self, name: str, key: str, least: float) -> None:
        self.name, self._key, self._least = name, key, least

    def reject(self, row: Row) -> str | None:
        value: Any = row.meta.get(self._key)
        if not isinstance(value, int | float) or value >= self._least:
            return None
        return f"{self._key} is {value:.3g}, less than {self._least:g}"
