"""What a task is: how its records become rows, what a model is asked, how an answer is read, verified and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from potstill.rows import ROLES, Message, Reference, Row, content_hash
from potstill.tasks.worked import MARK, Form, Worked, asked_for_rationale, reasoned_first, split_last_line, split_marked

Prediction = str | list[str]


class RowError(Exception):
    """Why a record is no row of a task; whoever read the record adds where it stands."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """An answer in its normal form (a label, a number, the text), or the reason why it has none, for a person to read."""

    value: str | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TaskScore:
    """per_row: each metric's value for each row, in their order. corpus: metrics that only exist for all rows together."""

    per_row: Mapping[str, list[float]]
    corpus: Mapping[str, float]


@dataclass(frozen=True)
class Task(ABC):
    """One kind of work. `labels` is the closed answer set of label tasks, known once the rows are (`with_rows`)."""

    labels: tuple[str, ...] = ()

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    # The fields of records in this task's own form, and that form as error messages show it.
    own_fields: ClassVar[tuple[str, ...]] = ()
    own_shape: ClassVar[str] = ""
    # Whether an answer that was cut off can still be used, because only its beginning counts.
    tolerates_cut: ClassVar[bool] = False
    # Whether answers to one question can be equal but for their words, so that they can be counted against each other.
    votes: ClassVar[bool] = True
    # Whether two questions that differ in a number alone are different questions, and not one question copied.
    numbers_tell_apart: ClassVar[bool] = False
    # What a prompt of this task is, where a teacher is asked to write a new one.
    new_prompt: ClassVar[str] = "a request that somebody sends to an assistant"
    # Whether a model may be asked to reason before it answers: where the answer is short, and can be told from the reasoning.
    reasons: ClassVar[bool] = False
    # Whether reasoning and answer may come as the fields of a JSON object, where an endpoint can be held to one.
    worked_as_json: ClassVar[bool] = True

    @property
    def main_metric(self) -> str:
        """The metric that retention and gain are about."""
        return self.metrics[0]

    @abstractmethod
    def own_form(self, record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
        """Messages and gold answer of a record in this task's own form; None where it has another form.

        Raises:
            RowError: the record has the form, but a field is wrong.
        """

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], rows: Sequence[Row]) -> TaskScore:
        """Score predictions against the rows' references; a prediction is a text, or the turns of a conversation."""

    def row(self, record: Mapping[str, Any]) -> Row:
        """A record of any accepted form as a row.

        Raises:
            RowError: it is none; the text says what was found and what was expected.
        """
        found = _dialogue(record) or self.own_form(record) or _instruction(record)
        if found is None:
            keys = ", ".join(sorted(map(str, record))) or "nothing"
            raise RowError(f"found the fields {keys}; expected {self.forms}")
        messages, reference = found
        check_roles(messages)
        messages, reference = self.split_gold(messages, reference)
        key = record.get("id")
        identity = str(key) if key not in (None, "") else content_hash([[m.as_dict() for m in messages], reference])[:16]
        used = {"id", "messages", "reference", "meta", *self.own_fields, *_INSTRUCTION_FIELDS}
        return Row(identity, tuple(messages), reference, _meta(record, used))

    @property
    def forms(self) -> str:
        """The accepted fields, for error messages."""
        own = f"{self.own_shape}, or " if self.own_shape else ""
        return f"{own}messages, or instruction/output, or prompt/completion"

    def split_gold(self, messages: list[Message], reference: Reference) -> tuple[list[Message], Reference]:
        """Take the gold answer off the end of a dialogue."""
        if messages[-1].role != "assistant":
            return messages, reference
        return messages[:-1], messages[-1].content if reference is None else reference

    def with_rows(self, rows: Iterable[Row]) -> Task:
        """The task as these rows make it: label sets and the like."""
        return self

    def settled(self, row: Row) -> Row:
        """The row with what only all rows together tell, such as a length target."""
        return row

    def teacher_messages(self, row: Row) -> tuple[Message, ...]:
        """What a model is asked that was not trained on the task: the row's messages, and whatever else it must know.

        The gold turns that the model is to write itself (`turns`) are left out by whoever asks.
        """
        return row.messages

    def worked_messages(self, row: Row, form: Form = "line") -> tuple[Message, ...]:
        """What a model that was not trained on the task is asked where it is to reason first; only where `reasons`."""
        return reasoned_first(row.messages, form)

    def split_worked(self, text: str) -> Worked:
        """The reasoning of a worked answer, and its answer as `worked` writes it; one without a mark ends in its answer."""
        return split_marked(text) or split_last_line(text)

    def bare(self, answer: str) -> str:
        """An answer that a model gave apart from its reasoning, in the form of an answer to the row."""
        return answer.strip()

    def worked(self, rationale: str, answer: str) -> str:
        """Reasoning and answer as one text, whose answer `parse` finds again."""
        return f"{rationale.strip()}\n{MARK} {answer}"

    def rationale_messages(self, row: Row) -> tuple[Message, ...]:
        """What a student is asked that learns to write the reasoning apart from the answer."""
        return asked_for_rationale(self.given(row))

    def given(self, row: Row) -> tuple[Message, ...]:
        """The messages of a prepared or a generated row without the assistant turns that a model is to write."""
        history = sum(message.role == "user" for message in row.messages) - self.turns(row)
        kept: list[Message] = []
        for message in row.messages:
            if message.role == "assistant":
                history -= 1
                if history < 0:
                    continue
            kept.append(message)
        return tuple(kept)

    def asked(self, row: Row) -> tuple[str, ...]:
        """What a row asks, instructions aside, in parts that must all agree for two rows to ask the same.

        The same passage with another question is another row.
        """
        return ("\n".join(message.content for message in self.given(row) if message.role != "system"),)

    def turns(self, row: Row) -> int:
        """How many assistant turns are to be generated."""
        return 1

    def choices(self, row: Row) -> tuple[str, ...]:
        """The closed set of answers, for engines that can enforce one; empty where the answer is free."""
        return ()

    def max_tokens(self, limit: int) -> int:
        """An upper bound for the length of an answer, given the job's limit; for models that do not think before it."""
        return limit

    def why_no_model(self, row: Row) -> str | None:
        """Why nobody could write a new prompt after the model of this row's, for a person to read; None where one can."""
        if sum(message.role == "user" for message in row.messages) > 1:
            return "its prompt is a dialogue of several turns"
        return None

    def parse(self, text: str, row: Row) -> Parsed:
        """The normal form of an answer."""
        stripped = text.strip()
        return Parsed(stripped) if stripped else Parsed(None, "the answer is empty")

    def verify(self, text: str, row: Row) -> bool | None:
        """Whether an answer agrees with the gold answer; None where there is none, or the task cannot tell."""
        return None

    def same_answer(self, value: str, other: str) -> bool:
        """Whether two answers in their normal form (`parse`) say the same."""
        return value.lower().split() == other.lower().split()

    def target(self, text: str, row: Row) -> str:
        """What the student is trained to write for this answer of the teacher."""
        return text.strip()

    def gold_text(self, row: Row) -> str | None:
        """What a model would write in its last turn to give the row's gold answer, the first of several; None without one."""
        return self.target(row.references[0], row) if row.references else None


def last_turn(prediction: Prediction) -> str:
    """The answer that a prediction ends in."""
    return prediction if isinstance(prediction, str) else prediction[-1]


def check_roles(messages: Sequence[Message]) -> None:
    """An optional system message, then user and assistant in turn, user first.

    Raises:
        RowError: another order.
    """
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    if not turns:
        raise RowError("the dialogue has no user message")
    for position, message in enumerate(turns):
        expected = "user" if position % 2 == 0 else "assistant"
        if message.role != expected:
            number = position + 1 + len(messages) - len(turns)
            raise RowError(f"message {number} is from '{message.role}', expected '{expected}' (roles take turns, user first)")


def text_field(record: Mapping[str, Any], name: str) -> str:
    """A field that has to be a text with something in it.

    Raises:
        RowError: it is missing, empty or of another type.
    """
    value = record.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RowError(f"the field '{name}' is {_kind(value)}, expected text")
    if not value.strip():
        raise RowError(f"the field '{name}' is empty")
    return value.strip()


def optional_text(record: Mapping[str, Any], name: str) -> str | None:
    """A text field that may be missing or empty.

    Raises:
        RowError: it is of another type, or has nothing but spaces in it.
    """
    return None if record.get(name) in (None, "") else text_field(record, name)


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__


def _dialogue(record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
    entries = record.get("messages")
    if entries is None:
        return None
    if not isinstance(entries, list) or not entries:
        raise RowError(f"'messages' is {_kind(entries) if entries != [] else 'empty'}, expected a list of messages")
    messages = [_message(entry, number) for number, entry in enumerate(entries, 1)]
    reference = record.get("reference")
    if isinstance(reference, list):
        return messages, [text_field({"reference": entry}, "reference") for entry in reference] or None
    return messages, optional_text(record, "reference")


def _message(entry: Any, number: int) -> Message:
    if not isinstance(entry, dict):
        raise RowError(f"message {number} is {_kind(entry)}, expected an object with role and content")
    role, content = entry.get("role"), entry.get("content")
    if role not in ROLES:
        raise RowError(f"message {number} has the role {role!r}, expected one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise RowError(f"the content of message {number} ({role}) is {_kind(content)}, expected text")
    if not content.strip() and role != "system":
        raise RowError(f"message {number} ({role}) is empty")
    return Message(role, content.strip())


_INSTRUCTION_FIELDS = ("instruction", "input", "output", "prompt", "completion")


def _instruction(record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
    if "instruction" in record:
        extra = optional_text(record, "input")
        question = text_field(record, "instruction") + (f"\n\n{extra}" if extra else "")
        return [Message("user", question)], optional_text(record, "output")
    if "prompt" in record:
        return [Message("user", text_field(record, "prompt"))], optional_text(record, "completion")
    return None


def _meta(record: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """What else a record says. Values that JSON cannot hold (the images of a hub data set, say) are left out."""
    own = record.get("meta")
    if own is not None and not isinstance(own, dict):
        raise RowError(f"the field 'meta' is {_kind(own)}, expected an object")
    values = {str(name): value for name, value in record.items() if name not in used} | (own or {})
    return {name: value for name, value in values.items() if _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True
