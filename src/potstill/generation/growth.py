"""How a teacher is asked for one new prompt, and how its reply is read.

Two ways. `grow`: a few prompts are shown and another one is asked for, wider, deeper or different in a way that changes from
request to request (after Self-Instruct, Wang et al. 2023, arXiv:2212.10560, and Evol-Instruct, Xu et al. 2023,
arXiv:2304.12244). `persona`: the teacher first thinks up a person who might write such a prompt, then writes it as that person
would (after Ge et al. 2024, arXiv:2406.20094).

Requests are numbered, and what a request says depends on its number and on what was there when its generation began: so a run
that was killed, or wants more prompts than before, asks the same again, and the journal has the replies.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from potstill.inference.protocol import Reply
from potstill.rows import Message, Row
from potstill.tasks import RowError, Task, looks_refused

GrowthWay = Literal["grow", "persona"]

_FIRST_GENERATION, _LARGEST_GENERATION = 64, 1024
_TURNS = (
    "Take another subject than these, one that is asked about less often.",
    "Make it more demanding than these: it has a condition more, or needs a further step of thought.",
    "Make it more concrete than these: it names people, places, times or amounts.",
    "Let the one who writes be in another situation than those who wrote these, and put it in other words.",
    "Make it simpler and shorter than these, or much longer, and on another subject.",
)
_ALONE = "Reply with {what} alone: no title, no number before it, no quotation marks, no remark."
_CLAIM = "reference_is"
_QUOTES = (('"""', '"""'), ("```", "```"), ('"', '"'), ("“", "”"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """One prompt that is to be written.

    number: of the request. turn: how it shall differ. examples: the rows shown; the first, one of the user's own, is the model
    for what is no part of the prompt, such as instructions. label: what the prompt shall be an example of, if anything.
    """

    number: int
    way: GrowthWay
    turn: str
    examples: tuple[Row, ...]
    label: str | None


@dataclass(frozen=True, slots=True)
class Unusable:
    """A reply that is no new prompt, by which rule, and why in words."""

    text: str
    rule: str
    reason: str


def generations() -> Iterator[range]:
    """The numbers of the requests of each generation: all of one are drawn from the same prompts, the first from the user's."""
    start, size = 0, _FIRST_GENERATION
    while True:
        yield range(start, start + size)
        start, size = start + size, min(2 * size, _LARGEST_GENERATION)


def draw(
    numbers: range, seeds: Sequence[Row], grown: Sequence[Row], *, ways: Sequence[GrowthWay], examples: int,
    have: Mapping[str, int],
) -> Iterator[Wanted]:
    """The requests of a generation, in their order.

    Args:
        seeds: The user's rows that can be a model, in an order that does not depend on that of their file.
        grown: The prompts written so far; about one example in three is one of these.
        have: How many rows of each label there are; the label of which there are fewest is asked for next. Empty: no labels.
    """
    counts = Counter(dict(have))
    for number in numbers:
        chance = random.Random(number)
        label = min(counts, key=lambda name: (counts[name], name)) if counts else None
        if label is not None:
            counts[label] += 1
        alike = [row for row in seeds if row.reference == label] or seeds
        shown = [chance.choice(alike)]
        for _ in range(examples - 1):
            pool = [row for row in grown if row.reference == label] if chance.random() < 1 / 3 else alike
            choice = chance.choice(pool or alike)
            shown += [choice] if choice not in shown else []
        yield Wanted(number, chance.choice(ways), chance.choice(_TURNS), tuple(shown), label)


def opening_of(seeds: Sequence[Row]) -> str:
    """What all prompts begin with, up to a colon or the end of a line: `Question: `, or instructions; empty where nothing."""
    texts = [prompt_text(row) for row in seeds]
    first, last = min(texts), max(texts)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    common = first[:length]
    return common[: max(common.rfind(": ") + 2, common.rfind("\n") + 1)] if re.search(r": |\n", common) else ""


def is_claim(row: Row) -> bool:
    """Whether a row's reference is the label that a teacher was asked for, and no gold answer."""
    return _CLAIM in row.meta


def prompt_text(row: Row) -> str:
    """The user's first message."""
    return next(message.content for message in row.messages if message.role == "user")


def persona_request(wanted: Wanted, task: Task) -> tuple[Message, ...]:
    """Asks for a person who might write such a prompt. Age and initial are given so that it is not always the same person."""
    chance = random.Random(f"persona {wanted.number}")
    age, initial = chance.randint(16, 80), chance.choice("ABCDEFGHILMNOPRSTUVW")
    told = (
        f"{_shown(wanted, task)}\n\nThink up one person who might write something of this kind and who did not write these. "
        f"The person is {age} years old and has an occupation or an interest that begins with {initial}. Describe in one "
        f"sentence what the person does, what is on their mind and how they write.\n\n{_ALONE.format(what='that sentence')}"
    )
    return (Message("user", told),)


def prompt_request(wanted: Wanted, task: Task, persona: str | None) -> tuple[Message, ...]:
    """Asks for the new prompt, as `persona` would write it where one is given."""
    if persona is None:
        turn = f"Write a new one of the same kind and form. {wanted.turn}"
    else:
        turn = f"Write a new one of the same kind and form, as this person would write it:\n\n{persona}"
    label = "" if wanted.label is None else f"\n\nIts label has to be {wanted.label}" + _not_others(wanted.label, task)
    return (Message("user", f"{_shown(wanted, task)}\n\n{turn}{label}\n\n{_ALONE.format(what='the new one')}"),)


def _not_others(label: str, task: Task) -> str:
    others = [name for name in task.labels if name != label]
    return f" and none of: {', '.join(others)}." if others else "."


def _shown(wanted: Wanted, task: Task) -> str:
    """The examples, and what those who answer them are told."""
    told = next((message.content for message in wanted.examples[0].messages if message.role == "system"), None)
    texts = "\n\n".join(
        f'Example {place}{_label_of(row, task)}:\n"""\n{prompt_text(row)}\n"""' for place, row in enumerate(wanted.examples, 1)
    )
    instructions = "" if told is None else f" Whoever answers is told: {told}"
    return f"Here are examples of one kind of text: {task.new_prompt}.{instructions}\n\n{texts}"


def _label_of(row: Row, task: Task) -> str:
    return f", label {row.references[0]}" if task.labels and row.references else ""


def read_prompt(reply: Reply, wanted: Wanted, task: Task, *, persona: str | None, opening: str) -> Row | Unusable:
    """The new row that a reply makes, not answered yet, or why it makes none.

    Args:
        persona: As whom the teacher wrote.
        opening: What all prompts begin with; it is put before one that does not.

    The row's reference is the label that was asked for: a claim of the teacher, and marked so in `meta`.
    """
    text = bare(reply.text)
    if reply.finish_reason == "length":
        return Unusable(text, "prompt_truncated", "the new prompt was cut off at generation.prompts.max_tokens")
    if not text:
        return Unusable(text, "prompt_unusable", "the new prompt is empty")
    if reply.finish_reason == "refused" or looks_refused(text):
        return Unusable(text, "prompt_refused", "the teacher declined to write a new prompt")
    if not text.startswith(opening):
        text = opening + text
    model = wanted.examples[0]
    system = [message.as_dict() for message in model.messages if message.role == "system"]
    meta: dict[str, Any] = {"grown_by": wanted.way, "grown_from": [row.id for row in wanted.examples]}
    if persona is not None:
        meta["persona"] = persona
    if wanted.label is not None:
        meta[_CLAIM] = "the label that the teacher was asked for, not a gold one"
    record = {"messages": [*system, {"role": "user", "content": text}], "reference": wanted.label, "meta": meta}
    try:
        row = task.settled(task.row(record))
    except RowError as error:
        return Unusable(text, "prompt_unusable", f"the new prompt makes no row: {error}")
    if len(task.asked(row)) != len(task.asked(_opening_alone(model))):
        return Unusable(text, "prompt_unusable", "the new prompt does not have the form of the examples")
    return row


def _opening_alone(row: Row) -> Row:
    """A row without what follows its first user message."""
    end = next(place for place, message in enumerate(row.messages, 1) if message.role == "user")
    return Row(row.id, row.messages[:end], None, row.meta)


def bare(text: str) -> str:
    """A reply without the quotation marks or the fence that it is wrapped in."""
    text = text.strip()
    for opening, closing in _QUOTES:
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : -len(closing)]
            if opening not in inner and closing not in inner:
                return inner.strip()
    return text
