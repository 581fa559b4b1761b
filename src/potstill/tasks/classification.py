"""Classification into a closed set of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from potstill.rows import Message, Reference
from potstill.tasks.base import text_field
from potstill.tasks.label import LabelTask, label_field

_PROMPT = "Classify the message. Answer with the label only."


@dataclass(frozen=True)
class Classification(LabelTask):
    """Main metric: accuracy; an answer that cannot be read is wrong."""

    name: ClassVar[str] = "classification"
    own_fields: ClassVar[tuple[str, ...]] = ("text", "label")

    def own_form(self, record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
        if "text" not in record:
            return None
        return [Message("system", _PROMPT), Message("user", text_field(record, "text"))], label_field(record, {})

    def default_labels(self, seen: Sequence[str]) -> tuple[str, ...]:
        return tuple(seen)
