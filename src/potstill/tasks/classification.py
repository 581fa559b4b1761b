"""Classification into a closed set of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from potstill.errors import InputError
from potstill.rows import Message, Reference
from potstill.tasks.base import text_field
from potstill.tasks.label import LabelTask, label_field


@dataclass(frozen=True)
class Classification(LabelTask):
    """Main metric: accuracy; an answer that cannot be read is wrong."""

    name: ClassVar[str] = "classification"
    own_fields: ClassVar[tuple[str, ...]] = ("text", "label")
    own_shape: ClassVar[str] = "text/label"
    new_prompt: ClassVar[str] = "a text that somebody classifies"
    question: ClassVar[str] = "Classify the message."

    def own_form(self, record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
        if "text" not in record:
            return None
        return [Message("system", self.prompt), Message("user", text_field(record, "text"))], label_field(record)

    def label_set(self, seen: Sequence[str]) -> tuple[str, ...]:
        if not seen:
            raise InputError(
                "the rows name no labels, so nobody can tell a right answer",
                expected="the field 'label' in some rows at least, or all labels in 'meta': {'labels': [...]} of one row",
            )
        return tuple(seen)
