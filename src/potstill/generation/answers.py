"""The teacher answers rows.

What goes in: prepared rows, the task, and a client around the teacher. What comes out: every row with the teacher's own turns
in place of the gold ones, and the rows to which no usable reply came, with the reason. What it costs: one request a row and
turn that the journal does not hold yet. Nothing is judged here: truncated, refused and wrong answers are curation's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from potstill.inference.client import Client, run_all
from potstill.inference.dialogue import RowAnswer, answer_row
from potstill.inference.protocol import Reply, Sampling
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

    An answered row has three more values in `meta`: finish_reasons (one a turn), completion_tokens (of all turns; None where
    the endpoint does not tell) and latency_s (of all turns).

    Args:
        sampling: As the job has it; the task may close the set of answers, and bound a local model's answers further.
        on_done: Called after each row with the number of rows done and the number of all.

    Raises:
        EndpointError: the endpoint refuses or does not answer at all; what was received stays in the journal.
    """
    outcomes: dict[int, Row | RejectedRow] = {}
    queue = iter(enumerate(rows))
    # A model behind an endpoint may think before it answers, and its thoughts count: only the job's own limit holds there.
    limit = task.max_tokens(sampling.max_tokens) if client.local else sampling.max_tokens

    async def work() -> None:
        for index, row in queue:
            wanted = replace(sampling, max_tokens=limit, choices=task.choices(row))
            answer = await answer_row(client, task.teacher_messages(row), task.turns(row), wanted)
            outcomes[index] = _outcome(row, answer)
            on_done(len(outcomes), len(rows))

    await run_all(work() for _ in range(min(concurrency, len(rows))))
    return [outcomes[index] for index in range(len(rows))]


def _outcome(row: Row, answer: RowAnswer) -> Row | RejectedRow:
    replies = [entry.reply for entry in answer.answers if entry.reply is not None]
    empty = next((reply for reply in replies if not reply.text.strip()), None)
    if answer.failure is not None:
        return RejectedRow(row, answer.failure)
    if empty is not None:
        return RejectedRow(row, _why_empty(empty))
    return _with_answers(row, replies)


def _why_empty(reply: Reply) -> str:
    if reply.finish_reason == "refused":
        return "the endpoint filtered the answer"
    if reply.finish_reason == "length":
        return "the reply is empty: the token limit was used up before the answer began, by reasoning for example"
    return "the reply is empty"


def _with_answers(row: Row, replies: Sequence[Reply]) -> Row:
    tokens = [reply.completion_tokens for reply in replies if reply.completion_tokens is not None]
    return replace(row, messages=_with_own_turns(row.messages, [reply.text for reply in replies])).with_meta(
        finish_reasons=[reply.finish_reason for reply in replies],
        completion_tokens=sum(tokens) if len(tokens) == len(replies) else None,
        latency_s=round(sum(reply.latency_s for reply in replies), 4),
    )


def _with_own_turns(messages: Sequence[Message], texts: Sequence[str]) -> tuple[Message, ...]:
    """The dialogue with its last `len(texts)` assistant turns being `texts`, the gold ones among them replaced."""
    gold_turns = sum(message.role == "user" for message in messages) - len(texts)
    own = iter(texts)
    result: list[Message] = []
    users = 0
    for message in messages:
        if message.role == "assistant" and users > gold_turns:
            continue
        result.append(message)
        if message.role == "user":
            users += 1
            if users > gold_turns:
                result.append(Message("assistant", next(own)))
    return tuple(result)
