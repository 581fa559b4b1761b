"""Mathematical reasoning: a worked solution that ends in a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from potstill.metrics import numbers_equal, parse_final_answer
from potstill.rows import Message, Reference, Row
from potstill.tasks.base import Parsed, Prediction, RowError, Task, TaskScore, last_turn, optional_text, text_field

_PROMPT = "Solve the problem step by step. End with a line that has #### and then the final number."


@dataclass(frozen=True)
class Math(Task):
    """Main metric: numeric equality of the final answers."""

    name: ClassVar[str] = "math"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "parsed")
    own_fields: ClassVar[tuple[str, ...]] = ("question", "answer", "final_answer")
    own_shape: ClassVar[str] = "question/answer"
    numbers_tell_apart: ClassVar[bool] = True
    new_prompt: ClassVar[str] = "a mathematical problem, told in words, that has one number as its answer"

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
