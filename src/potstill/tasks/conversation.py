"""Conversation: every assistant turn of a dialogue, each built on the model's own earlier turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from potstill.metrics import bleu, chrf, length_ratio, rouge_l
from potstill.rows import Message, Reference, Row
from potstill.tasks.base import Prediction, RowError, Task, TaskScore

_METRICS = {"rouge_l": rouge_l, "bleu": bleu, "chrf": chrf, "length_ratio": length_ratio}


@dataclass(frozen=True)
class Conversation(Task):
    """Main metric: ROUGE-L F, averaged over the assistant turns of a dialogue."""

    name: ClassVar[str] = "conversation"
    votes: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "bleu", "chrf", "length_ratio", "accuracy")
    new_prompt: ClassVar[str] = "the message with which somebody opens a conversation with an assistant"

    def own_form(self, record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
        return None

    def split_gold(self, messages: list[Message], reference: Reference) -> tuple[list[Message], Reference]:
        """The gold answer is the list of all assistant turns; those before the last stay in the dialogue."""
        gold = [message.content for message in messages if message.role == "assistant"]
        asked = sum(message.role == "user" for message in messages)
        if messages[-1].role == "assistant":
            reference = gold if reference is None else reference
            messages, gold = messages[:-1], gold[:-1]
        if reference is None:
            return messages, None
        given = [reference] if isinstance(reference, str) else reference
        if len(given) == asked:
            return messages, given
        if len(given) == 1:
            return messages, [*gold, *given]
        raise RowError(f"'reference' has {len(given)} turns, expected {asked} (one a user turn) or the last alone")

    def why_no_model(self, row: Row) -> str | None:
        return None  # how a dialogue opens can be told anew, whatever came of it

    def turns(self, row: Row) -> int:
        return sum(message.role == "user" for message in row.messages)

    def gold_text(self, row: Row) -> str | None:
        return row.references[-1].strip() if row.references else None

    def score(self, predictions: Sequence[Prediction], rows: Sequence[Row]) -> TaskScore:
        values: dict[str, list[float]] = {name: [] for name in _METRICS}
        for prediction, row in zip(predictions, rows, strict=True):
            said = [prediction] if isinstance(prediction, str) else prediction
            turns = list(zip(said, row.references, strict=True))
            for name, metric in _METRICS.items():
                values[name].append(sum(metric(text, gold) for text, gold in turns) / len(turns))
        return TaskScore(values, {})
