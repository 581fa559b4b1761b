"""The teacher answers rows.

What goes in: prepared rows, the task, and a client around the teacher. What comes out: every row with the teacher's own turns in
place of the gold ones, and the rows to which no usable reply came, with the reason. What it costs: one request a row and turn
that the journal does not hold yet. Nothing is judged here: truncated, refused and wrong answers are curation's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from potstill.inference.client import Client
from potstill.inference.dialogue import RowAnswer, answer_row
from potstill.inference.protocol import Sampling
from potstill.rows import Message, Row
from potstill.tasks import Task


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row without a usable reply, and why."""

    row: Row
    reason: str


async def generate_answers(
    rows: Sequence[Row],
    task: Task,
    client: Client,
    sampling: Sampling,
    *,
    concurrency: int,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row | RejectedRow]:
    """Ask the teacher for every row, `concurrency` rows at a time; the result has one entry a row, in the same order.

    Args:
        on_done: Called after each row with the number of rows done and the number of all.

    Raises:
        EndpointError: the endpoint refuses or does not answer at all; what was received stays in the journal.
    """
    answers: list[RowAnswer | None] = [None] * len(rows)
    queue = iter(enumerate(rows))
    done = 0

    async def work(pending: Iterator[tuple[int, Row]]) -> None:
        nonlocal done
        for index, row in pending:
            wanted = replace(sampling, max_tokens=task.max_tokens(sampling.max_tokens), choices=task.choices(row))
            answers[index] = await answer_row(client, task.teacher_messages(row), task.turns(row), wanted)
            done += 1
            on_done(done, len(rows))

    async with _fail_fast() as group:
        for _ in range(min(concurrency, len(rows))):
            group.create_task(work(queue))
    return [_outcome(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]


class _fail_fast:
    """A task group that raises the first task's own error instead of a group of errors."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> asyncio.TaskGroup:
        return await self._group.__aenter__()

    async def __aexit__(self, *exit_info: object) -> None:
        try:
            await self._group.__aexit__(*exit_info)  # type: ignore[arg-type]
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


def _outcome(row: Row, answer: RowAnswer) -> Row | RejectedRow:
    if answer.complete and all(text.strip() for text in answer.texts):
        return _with_answers(row, answer)
    return RejectedRow(row, answer.failure or "the reply is empty")


def _with_answers(row: Row, answer: RowAnswer) -> Row:
    replies = [entry.reply for entry in answer.answers if entry.reply is not None]
    tokens = [reply.completion_tokens for reply in replies if reply.completion_tokens is not None]
    return replace(row, messages=with_own_turns(row.messages, answer.texts)).with_meta(
        finish_reasons=[reply.finish_reason for reply in replies],
        completion_tokens=sum(tokens) if len(tokens) == len(replies) else None,
        latency_s=round(sum(reply.latency_s for reply in replies), 4),
    )


def with_own_turns(messages: Sequence[Message], texts: Sequence[str]) -> tuple[Message, ...]:
    """The dialogue with its last `len(texts)` assistant turns being `texts` (the gold ones among them are replaced)."""
    gold_turns = sum(message.role == "user" for message in messages) - len(texts)
    remaining = iter(texts)
    result: list[Message] = []
    seen = 0
    for message in messages:
        if message.role == "assistant" and seen > gold_turns:
            continue
        result.append(message)
        if message.role == "user":
            seen += 1
            if seen > gold_turns:
                result.append(Message("assistant", next(remaining)))
    return tuple(result)
