"""Tasks whose answer is one of a closed set of labels.

The student's own prompt never lists the labels: it learns them, which keeps its prompts short. A model that was not trained
(the teacher, the untouched student) is told the labels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from potstill.metrics import macro_f1, parse_label
from potstill.rows import Message, Row
from potstill.tasks.base import Parsed, Prediction, RowError, Task, TaskScore


@dataclass(frozen=True)
class LabelTask(Task):
    """Base of NLI and classification."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "parsed", "macro_f1")
    tolerates_cut: ClassVar[bool] = True

    @abstractmethod
    def default_labels(self, seen: Sequence[str]) -> tuple[str, ...]:
        """The label set, given all gold labels."""

    def with_rows(self, rows: Sequence[Row]) -> LabelTask:
        """Learn the label set: all gold labels, or those that the rows name in meta.labels."""
        named = {str(label) for row in rows for label in row.meta.get("labels", ())}
        seen = sorted(named | {label for row in rows for label in row.references})
        return replace(self, labels=self.default_labels(seen))

    def teacher_messages(self, row: Row) -> tuple[Message, ...]:
        text = " ".join(message.content for message in row.messages).lower()
        if not self.labels or all(label.lower() in text for label in self.labels):
            return row.messages
        told = f"The labels are: {', '.join(self.labels)}. Answer with exactly one of them and nothing else."
        first = row.messages[0]
        if first.role != "system":
            return (Message("system", told), *row.messages)
        return (Message("system", f"{first.content} {told}"), *row.messages[1:])

    def choices(self, row: Row) -> tuple[str, ...]:
        return self.labels

    def max_tokens(self, limit: int) -> int:
        """No token is shorter than a byte, and a label may stand in a short sentence."""
        longest = max((len(label.encode()) for label in self.labels), default=32)
        return min(limit, longest + 16)

    def parse(self, text: str, row: Row) -> Parsed:
        label = parse_label(text, self.labels)
        return Parsed(label) if label is not None else Parsed(None, "it names none of the labels, or several")

    def verify(self, text: str, row: Row) -> bool | None:
        return parse_label(text, self.labels) == row.references[0] if row.references else None

    def target(self, text: str, row: Row) -> str:
        return parse_label(text, self.labels) or text.strip()

    def score(self, predictions: Sequence[Prediction], rows: Sequence[Row]) -> TaskScore:
        found = [self.parse(_text(prediction), row).value for prediction, row in zip(predictions, rows, strict=True)]
        # The reference may be a teacher's answer, so it is read like one.
        golds = [self.parse(row.references[0], row).value or row.references[0] for row in rows]
        return TaskScore(
            {
                "accuracy": [float(label == gold) for label, gold in zip(found, golds, strict=True)],
                "parsed": [float(label is not None) for label in found],
            },
            {"macro_f1": macro_f1(golds, found, sorted(set(golds)))},
        )


def _text(prediction: Prediction) -> str:
    return prediction if isinstance(prediction, str) else prediction[-1]


def label_field(record: Mapping[str, Any], names: Mapping[str, str]) -> str | None:
    """The gold label of a record as text; None where it has none. `names` spells out numbered labels.

    Raises:
        RowError: the label is of another type, or empty.
    """
    value = record.get("label")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise RowError(f"the field 'label' is {value!r}, expected a label")
    text = str(value).strip()
    return names.get(text, text)
