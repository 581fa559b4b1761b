"""Mathematical reasoning: a worked solution that ends in a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from potstill.metrics import numbers_equal, parse_final_answer
from potstill.rows import Message, Reference, Row
from potstill.tasks.base import Parsed, Prediction, RowError, Task, TaskScore, last_turn, optional_text, text_field
from potstill.tasks.worked import Form, Worked

_MARK = "####"
_PROMPT = f"Solve the problem step by step. End with a line that has {_MARK} and then the final number."


@dataclass(frozen=True)
class Math(Task):
    """Main metric: numeric equality of the final answers."""

    name: ClassVar[str] = "math"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "parsed")
    own_fields: ClassVar[tuple[str, ...]] = ("question", "answer", "final_answer")
    own_shape: ClassVar[str] = "question/answer"
    numbers_tell_apart: ClassVar[bool] = True
    new_prompt: ClassVar[str] = "a mathematical problem, told in words, that has one number as its answer"
    reasons: ClassVar[bool] = True
    worked_as_json: ClassVar[bool] = False  # models write LaTeX, and JSON reads "\\frac" as a form feed and "rac"

    def own_form(self, record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
        if "question" not in record:
            return None
        gold = optional_text(record, "answer") or optional_text(record, "final_answer")
        return [Message("system", _PROMPT), Message("user", text_field(record, "question"))], gold

    def split_gold(self, messages: list[Message], reference: Reference) -> tuple[list[Message], Reference]:
        """A gold answer without a number would make every answer wrong.

        Raises:
            RowError: there is such a one.
        """
        messages, gold = super().split_gold(messages, reference)
        for text in [gold] if isinstance(gold, str) else gold or []:
            if parse_final_answer(text) is None:
                raise RowError(f"the gold answer {text[-60:]!r} has no final number")
        return messages, gold

    def worked_messages(self, row: Row, form: Form = "line") -> tuple[Message, ...]:
        """The task's own prompt asks for worked answers already, and one of the user's own may do so too."""
        first = row.messages[0]
        if first.role != "system":
            return (Message("system", _PROMPT), *row.messages)
        return row.messages if _MARK in first.content else (Message("system", f"{first.content} {_PROMPT}"), *row.messages[1:])

    def split_worked(self, text: str) -> Worked:
        """The answer is what follows the last mark; without a mark, the number that the solution ends in."""
        rationale, mark, answer = text.rpartition(_MARK)
        if mark and answer.strip():
            return Worked(rationale.strip() or None, self.bare(answer.strip().partition("\n")[0]))
        number = parse_final_answer(text)
        return Worked(None, text.strip()) if number is None else Worked(text.strip(), self.bare(number))

    def bare(self, answer: str) -> str:
        return f"{_MARK} {answer.replace(_MARK, '').strip()}"

    def worked(self, rationale: str, answer: str) -> str:
        return f"{rationale.strip()}\n{answer}"

    def parse(self, text: str, row: Row) -> Parsed:
        number = parse_final_answer(text)
        return Parsed(number) if number is not None else Parsed(None, "it has no final number")

    def verify(self, text: str, row: Row) -> bool | None:
        if not row.references:
            return None
        answer = parse_final_answer(text)
        return any(numbers_equal(answer, parse_final_answer(gold)) for gold in row.references)

    def same_answer(self, value: str, other: str) -> bool:
        return numbers_equal(value, other)

    def score(self, predictions: Sequence[Prediction], rows: Sequence[Row]) -> TaskScore:
        pairs = list(zip(map(last_turn, predictions), rows, strict=True))
        return TaskScore(
            {
                "accuracy": [float(bool(self.verify(text, row))) for text, row in pairs],
                "parsed": [float(self.parse(text, row).value is not None) for text, row in pairs],
            },
            {},
        )
