"""Natural language inference: does the hypothesis follow from the premise?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from potstill.rows import Message, Reference
from potstill.tasks.base import text_field
from potstill.tasks.label import LabelTask, label_field

_LABELS = ("entailment", "neutral", "contradiction")
_NUMBERED = {str(number): label for number, label in enumerate(_LABELS)}  # as SNLI and MNLI number them
_PROMPT = "Decide how the hypothesis relates to the premise. Answer with the label only."


@dataclass(frozen=True)
class NLI(LabelTask):
    """Main metric: accuracy; an answer that cannot be read is wrong."""

    labels: tuple[str, ...] = _LABELS
    name: ClassVar[str] = "nli"
    own_fields: ClassVar[tuple[str, ...]] = ("premise", "hypothesis", "label")

    def own_form(self, record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
        if "premise" not in record and "hypothesis" not in record:
            return None
        question = f"Premise: {text_field(record, 'premise')}\nHypothesis: {text_field(record, 'hypothesis')}"
        return [Message("system", _PROMPT), Message("user", question)], label_field(record, _NUMBERED)

    def default_labels(self, seen: Sequence[str]) -> tuple[str, ...]:
        return _LABELS if set(seen) <= set(_LABELS) else tuple(seen)
