"""Text: any prompt, any answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from potstill.metrics import bleu, chrf, length_ratio, rouge_l
from potstill.rows import Message, Reference, Row
from potstill.tasks.base import Prediction, Task, TaskScore, last_turn, text_field

_METRICS = {"rouge_l": rouge_l, "bleu": bleu, "chrf": chrf, "length_ratio": length_ratio}


@dataclass(frozen=True)
class Text(Task):
    """Main metric: ROUGE-L F against the reference."""

    name: ClassVar[str] = "text"
    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "bleu", "chrf", "length_ratio", "accuracy")
    own_fields: ClassVar[tuple[str, ...]] = ("text",)
    own_shape: ClassVar[str] = "text"

    def own_form(self, record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
        if "text" not in record:
            return None
        return [Message("user", text_field(record, "text"))], None

    def score(self, predictions: Sequence[Prediction], rows: Sequence[Row]) -> TaskScore:
        pairs = list(zip(map(last_turn, predictions), rows, strict=True))
        values = {name: [metric(text, row.references) for text, row in pairs] for name, metric in _METRICS.items()}
        return TaskScore(values, {})
