"""New prompts from few: the teacher writes them, and answers them, until enough rows are worth keeping.

What goes in: the user's rows. What comes out: new rows with prompts that no earlier one is too near to, each handed on to be
answered, and every reply that made none, with the rule and the reason. What it costs: one request a prompt, two where a persona
is thought up first, and one or more for the answer. It works in rounds: the prompts of a round are asked for at once and looked
at in their order, so that what comes out does not depend on which reply came first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import ceil
from typing import Any, Protocol

from potstill.generation.diversity import Diversity
from potstill.generation.growth import (
    GrowthWay,
    Unusable,
    Wanted,
    bare,
    draw,
    generations,
    opening_of,
    persona_request,
    prompt_request,
    prompt_text,
    read_prompt,
)
from potstill.generation.ways import Teacher, tokens_of
from potstill.inference.client import Answer, run_all
from potstill.inference.protocol import Reply, Request
from potstill.rows import Message, Row, content_hash
from potstill.tasks import Task

_LEAST_SHARE = 0.1  # of the prompts asked for that is reckoned to be kept


class Plan(Protocol):
    """What is wanted; `generation.prompts` of the job file has these keys and says what they mean."""

    @property
    def wanted(self) -> int: ...
    @property
    def ways(self) -> Sequence[GrowthWay]: ...
    @property
    def floor(self) -> float: ...
    @property
    def examples(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def tries(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RejectedPrompt:
    """A reply that made no new row."""

    wanted: Wanted
    text: str
    rule: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """As other rejected rows are written, with the rule."""
        meta = {"grown_by": self.wanted.way, "grown_from": [row.id for row in self.wanted.examples]}
        row = Row(f"prompt-{self.wanted.number}", (Message("user", self.text),), self.wanted.label, meta)
        return {**row.as_dict(), "split": "train", "rule": self.rule, "reason": self.reason}


@dataclass
class Grown:
    """What came of it: the new rows in the order of their requests, what was rejected, and the cost.

    kept: rows that are worth keeping, the user's own included. completion_tokens: of prompts and personas, None where the
    endpoint does not tell.
    """

    rows: list[Row] = field(default_factory=list)
    rejected: list[RejectedPrompt] = field(default_factory=list)
    asked: int = 0
    kept: int = 0
    completion_tokens: int | None = 0


@dataclass(frozen=True)
class Around:
    """What growing needs of those who call it.

    answer: has new rows answered. kept: how many answered rows are worth keeping, by label (by the empty text in tasks without
    labels). on_prompt: told how many rows are kept and how many prompts have come, whenever one has.
    """

    answer: Callable[[Sequence[Row]], Awaitable[None]]
    kept: Callable[[], Counter[str]]
    on_prompt: Callable[[int, int], None]


async def grow_prompts(
    own: Sequence[Row], held_out: Sequence[Row], teacher: Teacher, task: Task, plan: Plan, around: Around, *, concurrency: int
) -> Grown:
    """Ask for new prompts until `plan.wanted` rows are kept, or the teacher does not get there: then fewer are.

    A teacher that has needed more than `plan.tries` prompts for each row that was kept ends it, at the end of a generation of
    requests. So to want no more than was reached before succeeds, without a request.

    Args:
        own: The user's training rows.
        held_out: Rows that no new prompt may come near either.

    Raises:
        EndpointError: the endpoint refuses or does not answer at all; what was received stays in the journal.
    """
    seeds = sorted((row for row in own if task.why_no_model(row) is None), key=_content)
    writer = _Writer(teacher, task, plan, seeds, (*own, *held_out), concurrency)
    have = around.kept()
    grown = Grown(kept=have.total())
    before = grown.kept
    for numbers in generations():
        labels = {label: have[label] for label in task.labels}
        waiting = draw(numbers, seeds, tuple(grown.rows), ways=plan.ways, examples=plan.examples, have=labels)
        while batch := list(islice(waiting, _needed(grown, before, plan.wanted))):
            fresh = await writer.write(batch, grown, around.on_prompt)
            if fresh:
                await around.answer(fresh)
                have = around.kept()
                grown.kept = have.total()
                around.on_prompt(grown.kept, grown.asked)
        if grown.kept >= plan.wanted or grown.asked > plan.tries * (grown.kept - before):
            break
    return grown


async def ask_for_prompts(own: Sequence[Row], teacher: Teacher, task: Task, plan: Plan, count: int) -> list[Row]:
    """Send the requests for the first `count` prompts and do no more with them: with a client that only counts, what writing
    takes where each is kept.

    Returns:
        For each prompt the row after whose model it would be made.
    """
    seeds = sorted((row for row in own if task.why_no_model(row) is None), key=_content)
    writer = _Writer(teacher, task, plan, seeds, (), 1)
    have = dict.fromkeys(task.labels, 0) | Counter(row.references[0] for row in own if task.labels and row.references)
    drawn = list(draw(range(count), seeds, (), ways=plan.ways, examples=plan.examples, have=have))
    for wanted in drawn:
        await writer.ask(wanted)
    return [wanted.examples[0] for wanted in drawn]


def _needed(grown: Grown, before: int, wanted: int) -> int:
    """How many prompts to ask for next, going by the share of those before that was kept."""
    share = (grown.kept - before) / grown.asked if grown.asked else 1.0
    return max(0, ceil((wanted - grown.kept) / max(share, _LEAST_SHARE)))


def _content(row: Row) -> str:
    return content_hash([[message.as_dict() for message in row.messages], row.reference])


class _Writer:
    """Has prompts written, and lets those through that nothing earlier is too near to."""

    def __init__(
        self, teacher: Teacher, task: Task, plan: Plan, seeds: Sequence[Row], there: Iterable[Row], concurrency: int
    ) -> None:
        self._client, self._task, self._plan, self._concurrency = teacher.client, task, plan, concurrency
        self._sampling = replace(teacher.sampling, temperature=plan.temperature, max_tokens=plan.max_tokens)
        self._opening = opening_of(seeds)
        self._there = Diversity((row.id, self._own_words(row)) for row in there)

    async def write(self, batch: Sequence[Wanted], grown: Grown, on_prompt: Callable[[int, int], None]) -> list[Row]:
        """The new rows of a batch, in its order; they and what was rejected are added to `grown`."""
        written: dict[int, _Written] = {}
        queue = iter(batch)

        async def work() -> None:
            for wanted in queue:
                written[wanted.number] = await self.ask(wanted)
                on_prompt(grown.kept, grown.asked + len(written))

        await run_all(work() for _ in range(self._concurrency))
        fresh: list[Row] = []
        for wanted in batch:
            found = self._judged(wanted, written[wanted.number])
            if isinstance(found, Unusable):
                grown.rejected.append(RejectedPrompt(wanted, found.text, found.rule, found.reason))
            else:
                fresh.append(found)
        grown.asked += len(batch)
        spent = tokens_of([reply for wanted in batch for reply in written[wanted.number].replies])
        if spent is None or grown.completion_tokens is None:
            grown.completion_tokens = None
        else:
            grown.completion_tokens += spent
        grown.rows += fresh
        return fresh

    async def ask(self, wanted: Wanted) -> _Written:
        """The one or two requests for a prompt."""
        if wanted.way == "grow":
            answer = await self._client.ask(self._request(wanted, prompt_request(wanted, self._task, None)))
            return _Written((answer,))
        first = await self._client.ask(self._request(wanted, persona_request(wanted, self._task)))
        persona = bare(first.reply.text) if first.reply is not None else ""
        if not persona:
            return _Written((first,))
        answer = await self._client.ask(self._request(wanted, prompt_request(wanted, self._task, persona)))
        return _Written((first, answer), persona)

    def _request(self, wanted: Wanted, messages: tuple[Message, ...]) -> Request:
        return Request(messages, self._sampling, wanted.number)

    def _judged(self, wanted: Wanted, written: _Written) -> Row | Unusable:
        reply = written.answers[-1].reply
        if reply is None:
            return Unusable("", "prompt_unanswered", written.answers[-1].failure or "no answer")
        if wanted.way == "persona" and written.persona is None:
            return Unusable("", "prompt_unusable", "the teacher thought up no person")
        row = read_prompt(reply, wanted, self._task, persona=written.persona, opening=self._opening)
        if isinstance(row, Unusable):
            return row
        similarity, other = self._there.nearest(self._own_words(row))
        if similarity == 1 or similarity > 1 - self._plan.floor:
            text = self._own_words(row)
            return Unusable(text, "prompt_too_near", f"asks nearly what row {other} asks (similarity {similarity:.2f})")
        self._there.add(row.id, self._own_words(row))
        return row

    def _own_words(self, row: Row) -> str:
        return prompt_text(row).removeprefix(self._opening)


@dataclass(frozen=True, slots=True)
class _Written:
    """The answers to the requests for one prompt, and the persona that it was written as."""

    answers: tuple[Answer, ...]
    persona: str | None = None

    @property
    def replies(self) -> list[Reply]:
        return [answer.reply for answer in self.answers if answer.reply is not None]
