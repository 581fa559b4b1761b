"""Ways to ask a teacher for one answer. The plainest: the task's own prompt, and the reply is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from potstill.generation.candidate import Candidate, Failure
from potstill.inference.client import Client
from potstill.inference.dialogue import RowAnswer, answer_row
from potstill.inference.protocol import Reply, Sampling
from potstill.rows import Message, Row
from potstill.tasks import Task


class Way(Protocol):
    """How one answer to a row is got from a teacher: which prompts, how many requests, what of the replies is the answer."""

    async def ask(self, teacher: Teacher, row: Row, sample: int) -> Candidate | Failure:
        """One candidate; `sample` numbers independent answers to the same row.

        Raises:
            EndpointError: the endpoint refuses every request or does not answer at all.
        """
        ...

    def longest(self, row: Row, max_tokens: int) -> Dialogue:
        """The longest dialogue that may come of a row, where answers may have `max_tokens` tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What a teacher is told for a row in all its requests together, and what it may answer.

    asked: the messages that are no answers of its own. answers: how many it gives. answer_tokens: the most of one answer.
    """

    asked: tuple[Message, ...]
    answers: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Teacher:
    """A teacher that can be asked: the name its user gave it, the client around it, and how its answers are drawn.

    top_logprobs: of how many of the likeliest tokens it also tells the log-probabilities, where its reply is the row's answer.
    """

    name: str
    client: Client
    sampling: Sampling
    top_logprobs: int = 0

    def limited(self, task: Task) -> Sampling:
        """The sampling for a plain answer of the task.

        A model behind an endpoint may think before it answers, and its thoughts count as tokens of the answer: only the job's
        own limit holds there, while a local model's answer is also bounded by what the task can need.
        """
        limit = self.sampling.max_tokens
        return replace(self.sampling, max_tokens=task.max_tokens(limit)) if self.client.local else self.sampling


@dataclass(frozen=True, slots=True)
class Direct:
    """One request a turn with the task's own prompt."""

    task: Task

    async def ask(self, teacher: Teacher, row: Row, sample: int) -> Candidate | Failure:
        sampling = replace(teacher.limited(self.task), choices=self.task.choices(row))
        turns = self.task.turns(row)
        answer = await answer_row(
            teacher.client, self.task.teacher_messages(row), turns, sampling, sample=sample, top_logprobs=teacher.top_logprobs
        )
        return candidate_of(answer, teacher.name, sample)

    def longest(self, row: Row, max_tokens: int) -> Dialogue:
        return Dialogue(self.task.teacher_messages(row), self.task.turns(row), self.task.max_tokens(max_tokens))


@dataclass(frozen=True, slots=True)
class WithRationale:
    """Another way, whose answers only count with the reasoning that led to them: a student is to learn it."""

    way: Way

    async def ask(self, teacher: Teacher, row: Row, sample: int) -> Candidate | Failure:
        candidate = await self.way.ask(teacher, row, sample)
        if isinstance(candidate, Candidate) and candidate.rationale is None and "refused" not in candidate.finish_reasons:
            return Failure("the teacher gave no reasoning with its answer, which generation.rationale is to teach")
        return candidate

    def longest(self, row: Row, max_tokens: int) -> Dialogue:
        return self.way.longest(row, max_tokens)


def candidate_of(answer: RowAnswer, teacher: str, sample: int) -> Candidate | Failure:
    """The replies to a row's turns as one candidate; an empty reply is no answer."""
    replies = [entry.reply for entry in answer.answers if entry.reply is not None]
    empty = next((reply for reply in replies if not reply.text.strip()), None)
    if answer.failure is not None:
        return Failure(answer.failure)
    if empty is not None:
        return Failure(_why_empty(empty))
    return Candidate(
        texts=tuple(reply.text for reply in replies),
        finish_reasons=tuple(reply.finish_reason for reply in replies),
        completion_tokens=tokens_of(replies),
        latency_s=sum(reply.latency_s for reply in replies),
        teacher=teacher,
        sample=sample,
        rationale="\n\n".join(reply.reasoning for reply in replies if reply.reasoning) or None,
        request_keys=answer.keys,
    )


def tokens_of(replies: Sequence[Reply]) -> int | None:
    """The tokens that these replies were written in; None where one of them does not tell."""
    counts = [reply.completion_tokens for reply in replies if reply.completion_tokens is not None]
    return sum(counts) if len(counts) == len(replies) else None


def _why_empty(reply: Reply) -> str:
    if reply.finish_reason == "refused":
        return "the endpoint filtered the answer"
    if reply.finish_reason == "length":
        return "the reply is empty: the token limit was used up before the answer began, by reasoning for example"
    return "the reply is empty"
