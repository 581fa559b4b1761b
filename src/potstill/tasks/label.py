"""Tasks whose answer is one of a closed set of labels.

The student's own prompt never lists the labels: it learns them, which keeps its prompts short. A model that was not trained
(the teacher, the untouched student) is told the labels.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from potstill.metrics import macro_f1, parse_label
from potstill.rows import Message, Row
from potstill.tasks.base import Parsed, Prediction, RowError, Task, TaskScore, last_turn
from potstill.tasks.worked import Form, reasoned_first, without_reasoning


@dataclass(frozen=True)
class LabelTask(Task):
    """Base of NLI and classification."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "parsed", "macro_f1")
    tolerates_cut: ClassVar[bool] = True
    reasons: ClassVar[bool] = True
    # The system prompt of the task's own form: what is wanted, and the form of a plain answer.
    question: ClassVar[str]
    form: ClassVar[str] = "Answer with the label only."

    @property
    def prompt(self) -> str:
        return f"{self.question} {self.form}"

    @abstractmethod
    def label_set(self, seen: Sequence[str]) -> tuple[str, ...]:
        """The closed set of answers, given all labels that the rows name.

        Raises:
            InputError: there is none.
        """

    def row(self, record: Mapping[str, Any]) -> Row:
        """A record as a row; where it lists all labels in meta.labels, its own has to be one of them."""
        row = super().row(record)
        listed = _listed(row)
        if listed and row.references and parse_label(row.references[0], listed) is None:
            raise RowError(f"the label is {row.references[0]!r}, expected one of meta.labels: {', '.join(listed)}")
        return row

    def with_rows(self, rows: Iterable[Row]) -> LabelTask:
        """Learn the label set: all gold labels, and those that the rows list in meta.labels.

        Raises:
            InputError: the rows name no label, and the task knows none by itself.
        """
        seen = {label for row in rows for label in (*row.references, *_listed(row))}
        return replace(self, labels=self.label_set(sorted(seen))) if seen or not self.labels else self

    def teacher_messages(self, row: Row) -> tuple[Message, ...]:
        if not self.labels or self._lists_labels(row):
            return row.messages
        told = f"The labels are: {', '.join(self.labels)}. Answer with exactly one of them and nothing else."
        first = row.messages[0]
        if first.role != "system":
            return (Message("system", told), *row.messages)
        return (Message("system", f"{first.content} {told}".strip()), *row.messages[1:])

    def worked_messages(self, row: Row, form: Form = "line") -> tuple[Message, ...]:
        own = row.messages[0].content == self.prompt
        messages = (Message("system", self.question), *row.messages[1:]) if own else row.messages
        told = not self.labels or self._lists_labels(row)
        return reasoned_first(messages, form, "" if told else f"The labels are: {', '.join(self.labels)}.")

    def _lists_labels(self, row: Row) -> bool:
        """Whether the user's own prompt names all labels; a text of the task's own form only happens to."""
        if row.messages[0].content == self.prompt:
            return False
        text = " ".join(message.content for message in row.messages).lower()
        return all(re.search(rf"(?<!\w){re.escape(label.lower())}(?!\w)", text) for label in self.labels)

    def choices(self, row: Row) -> tuple[str, ...]:
        return self.labels

    def max_tokens(self, limit: int) -> int:
        """No token is shorter than a byte, and a label may stand in a short sentence."""
        longest = max((len(label.encode()) for label in self.labels), default=32)
        return min(limit, longest + 16)

    def parse(self, text: str, row: Row) -> Parsed:
        label = self._label(text)
        return Parsed(label) if label is not None else Parsed(None, "it names none of the labels, or several")

    def verify(self, text: str, row: Row) -> bool | None:
        return self._label(text) == row.references[0] if row.references else None

    def target(self, text: str, row: Row) -> str:
        return self._label(text) or text.strip()

    def _label(self, text: str) -> str | None:
        """Reasoning may name every label; the marked line after it names one."""
        return parse_label(without_reasoning(text), self.labels)

    def score(self, predictions: Sequence[Prediction], rows: Sequence[Row]) -> TaskScore:
        found = [self.parse(last_turn(prediction), row).value for prediction, row in zip(predictions, rows, strict=True)]
        # The reference may be a teacher's answer, so it is read like one.
        golds = [self.parse(row.references[0], row).value or row.references[0] for row in rows]
        return TaskScore(
            {
                "accuracy": [float(label == gold) for label, gold in zip(found, golds, strict=True)],
                "parsed": [float(label is not None) for label in found],
            },
            {"macro_f1": macro_f1(golds, found, sorted(set(golds)))},
        )


def _listed(row: Row) -> list[str]:
    """The labels in a row's meta.labels; a column of that name that is no list of texts has another meaning."""
    listed = row.meta.get("labels")
    return listed if isinstance(listed, list) and all(isinstance(label, str) and label for label in listed) else []


def label_field(record: Mapping[str, Any]) -> str | None:
    """The gold label of a record as text; None where it has none.

    Raises:
        RowError: the label is neither a text nor an integer, or nothing but spaces.
    """
    value = record.get("label")
    if value in (None, ""):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise RowError(f"the field 'label' is {value!r}, expected a text or an integer")
    return str(value).strip()
