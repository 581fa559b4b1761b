"""Summarization of a document, with a target for the length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from potstill.metrics import bleu, rouge_1, rouge_2, rouge_l, within_length
from potstill.rows import Message, Reference, Row
from potstill.tasks.base import Prediction, Task, TaskScore, last_turn, optional_text, text_field

_PROMPT = "Summarise the text."
_METRICS = {"rouge_l": rouge_l, "rouge_1": rouge_1, "rouge_2": rouge_2, "bleu": bleu}
# Coarse steps, so that a few more rows do not change the target and with it every request.
_STEPS = (20, 40, 60, 80, 120, 160, 240, 320, 480)
_DEFAULT_WORDS = 80


@dataclass(frozen=True)
class Summarization(Task):
    """Main metric: ROUGE-L F. `max_words` is the length target: nine in ten gold summaries keep to it."""

    max_words: int = _DEFAULT_WORDS

    name: ClassVar[str] = "summarization"
    votes: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "rouge_1", "rouge_2", "bleu", "within_length", "accuracy")
    own_fields: ClassVar[tuple[str, ...]] = ("document", "summary", "references")
    own_shape: ClassVar[str] = "document/summary"

    def own_form(self, record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
        if "document" not in record:
            return None
        several = record.get("references")
        gold: Reference = optional_text(record, "summary")
        if isinstance(several, list) and several:
            gold = [text_field({"references": entry}, "references") for entry in several]
        return [Message("system", _PROMPT), Message("user", text_field(record, "document"))], gold

    def with_rows(self, rows: Iterable[Row]) -> Summarization:
        lengths = sorted(len(row.references[0].split()) for row in rows if row.references)
        if not lengths:
            return self
        wanted = lengths[int(0.9 * (len(lengths) - 1))]
        return replace(self, max_words=next((step for step in _STEPS if step >= wanted), _STEPS[-1]))

    def settled(self, row: Row) -> Row:
        """The length target goes into the row, so that every model and every process has the same one."""
        return row.with_meta(max_words=self.target_words(row))

    def target_words(self, row: Row) -> int:
        """The row's own length target where it has one."""
        own = row.meta.get("max_words")
        return own if isinstance(own, int) and own > 0 else self.max_words

    def why_no_model(self, row: Row) -> str | None:
        return "its prompt is a document, which has to be a real text"

    def teacher_messages(self, row: Row) -> tuple[Message, ...]:
        told = f"Use at most {self.target_words(row)} words."
        first = row.messages[0]
        if first.content == _PROMPT:
            return (Message("system", f"{first.content} {told}"), *row.messages[1:])
        return row.messages

    def score(self, predictions: Sequence[Prediction], rows: Sequence[Row]) -> TaskScore:
        pairs = list(zip(map(last_turn, predictions), rows, strict=True))
        values = {name: [metric(text, row.references) for text, row in pairs] for name, metric in _METRICS.items()}
        values["within_length"] = [within_length(text, self.target_words(row)) for text, row in pairs]
        return TaskScore(values, {})
