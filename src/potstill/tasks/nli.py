"""Natural language inference: does the hypothesis follow from the premise?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from potstill.metrics import parse_label
from potstill.rows import Message, Reference, Row
from potstill.tasks.base import text_field
from potstill.tasks.label import LabelTask, label_field

_LABELS = ("entailment", "neutral", "contradiction")
# As SNLI and MNLI number them on the hub; -1 is a pair on which the annotators did not agree.
_NUMBERED: dict[str, str | None] = {"0": "entailment", "1": "neutral", "2": "contradiction", "-1": None}


@dataclass(frozen=True)
class NLI(LabelTask):
    """Main metric: accuracy; an answer that cannot be read is wrong."""

    labels: tuple[str, ...] = _LABELS
    name: ClassVar[str] = "nli"
    own_fields: ClassVar[tuple[str, ...]] = ("premise", "hypothesis", "label")
    own_shape: ClassVar[str] = "premise/hypothesis/label"
    new_prompt: ClassVar[str] = "a premise and a hypothesis, of which somebody tells whether the one follows from the other"
    question: ClassVar[str] = "Decide how the hypothesis relates to the premise."

    def own_form(self, record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
        if "premise" not in record and "hypothesis" not in record:
            return None
        question = f"Premise: {text_field(record, 'premise')}\nHypothesis: {text_field(record, 'hypothesis')}"
        return [Message("system", self.prompt), Message("user", question)], label_field(record)

    def split_gold(self, messages: list[Message], reference: Reference) -> tuple[list[Message], Reference]:
        """A gold label may be a number, or stand in a sentence; labels of another set stay as they are."""
        messages, gold = super().split_gold(messages, reference)
        if not isinstance(gold, str):
            return messages, gold
        return messages, _NUMBERED[gold] if gold in _NUMBERED else parse_label(gold, _LABELS) or gold

    def asked(self, row: Row) -> tuple[str, ...]:
        (text,) = super().asked(row)
        premise, _, hypothesis = text.rpartition("\nHypothesis: ")
        return (premise, hypothesis) if premise.startswith("Premise: ") else (text,)

    def label_set(self, seen: Sequence[str]) -> tuple[str, ...]:
        return _LABELS if set(seen) <= set(_LABELS) else tuple(seen)
