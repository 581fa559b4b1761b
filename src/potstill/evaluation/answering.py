"""Ask one model for every test row, and measure how fast it answers.

What goes in: the rows as questions and a client (or, for throughput, the bare engine). What comes out: one answer a row, in
order. What it costs: a model on this machine answers every row once, one at a time, and up to 32 rows again for throughput; an
endpoint is never asked for anything but the predictions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from potstill.evaluation.predictions import Measurement, Prediction
from potstill.inference.client import Answer, Client, run_all
from potstill.inference.dialogue import RowAnswer, answer_row
from potstill.inference.protocol import Engine, Request, Sampling, TransportError
from potstill.rows import Message, Row
from potstill.tasks import Task

LATENCY_ROWS = 32  # of an endpoint: enough for a 95th percentile; a thousand rows one at a time would take an hour
THROUGHPUT_ROWS = 32
THROUGHPUT_LIMIT_S = 20.0
ENDPOINT_CONCURRENCY = 32


@dataclass(frozen=True, slots=True)
class Question:
    """A test row as this model is asked it."""

    row: Row
    messages: tuple[Message, ...]
    turns: int
    sampling: Sampling

    @property
    def request(self) -> Request:
        """The last turn alone, on top of the gold ones."""
        return Request(self.messages, self.sampling)


@dataclass(frozen=True, slots=True)
class Answers:
    """One answer a question, in their order. alone: those asked one at a time, whose latency counts."""

    all: list[RowAnswer]
    alone: list[RowAnswer]
    throughput_rps: float | None
    throughput_concurrency: int | None


def prepare_questions(measurement: Measurement, task: Task, rows: Sequence[Row]) -> list[Question]:
    """Every row as this model is asked it: untrained models get the task's instructions, trained ones the row alone.

    A closed label set is not enforced here, whatever the engine could do: a deployed model answers freely, and an answer that
    cannot be read is a wrong one.
    """
    sampling = measurement.sampling
    # A model behind an endpoint may think before it answers, and its thoughts count, as does reasoning in the answer itself.
    if not measurement.model.served and not measurement.worked:
        sampling = replace(sampling, max_tokens=task.max_tokens(sampling.max_tokens))
    return [Question(row, _asked(measurement, task, row), task.turns(row), sampling) for row in rows]


def _asked(measurement: Measurement, task: Task, row: Row) -> tuple[Message, ...]:
    if not measurement.untrained:
        return row.messages
    return task.worked_messages(row) if measurement.worked else task.teacher_messages(row)


async def warm_up(engine: Engine, questions: Sequence[Question]) -> None:
    """Let a local model answer the longest prompt once, so that its memory is at its peak and its first call is behind it."""
    longest = max(questions, key=lambda question: sum(len(message.content) for message in question.messages))
    await engine.generate(longest.request)


async def answer_locally(
    client: Client, questions: Sequence[Question], sample: int, on_done: Callable[[int], None]
) -> list[RowAnswer]:
    """Ask for every row, one at a time."""
    answers = []
    for question in questions:
        answers.append(await answer_row(client, question.messages, question.turns, question.sampling, sample=sample))
        on_done(len(answers))
    return answers


async def answer_remotely(
    client: Client, questions: Sequence[Question], sample: int, concurrency: int, on_done: Callable[[int], None]
) -> Answers:
    """Ask an endpoint: the first rows one at a time for latency, the others at its concurrency, which gives its throughput.

    Throughput is None where too few replies are new to tell: replies of the journal take no time.
    """
    alone = await answer_locally(client, questions[:LATENCY_ROWS], sample, on_done)
    rest = questions[LATENCY_ROWS:]
    answers: list[RowAnswer | None] = [None] * len(rest)
    done = len(alone)

    async def work(pending: Iterator[tuple[int, Question]]) -> None:
        nonlocal done
        for index, question in pending:
            answers[index] = await answer_row(
                client, question.messages, question.turns, question.sampling, sample=sample
            )
            done += 1
            on_done(done)

    started = time.perf_counter()
    queue = iter(enumerate(rest))
    await run_all(work(queue) for _ in range(min(concurrency, len(rest))))
    elapsed_s = time.perf_counter() - started
    together = [answer for answer in answers if answer is not None]
    fresh = sum(not part.from_journal for part in received(together))
    tells = fresh >= 2 * concurrency
    return Answers(
        all=alone + together,
        alone=alone,
        throughput_rps=fresh / elapsed_s if tells else None,
        throughput_concurrency=concurrency if tells else None,
    )


async def measure_throughput(engine: Engine, questions: Sequence[Question], concurrency: int) -> float | None:
    """Responses a second of a local model with `concurrency` rows at once: the first 32 rows, begun within 20 s."""
    answered = 0
    started = time.perf_counter()

    async def work(pending: Iterator[Question]) -> None:
        nonlocal answered
        for question in pending:
            if time.perf_counter() - started > THROUGHPUT_LIMIT_S:
                return
            try:
                reply = await engine.generate(question.request)
            except TransportError:
                continue
            answered += reply.status == 200

    queue = islice(questions, THROUGHPUT_ROWS)
    await run_all(work(queue) for _ in range(concurrency))
    return answered / (time.perf_counter() - started) if answered else None


def to_prediction(row: Row, answer: RowAnswer) -> Prediction:
    """What is kept of an answer. A turn without an answer is an empty text, which every metric scores as wrong."""
    texts = answer.texts + [""] * (answer.turns - len(answer.texts))
    replies = [part.reply for part in answer.answers if part.reply is not None]
    latencies_s = responses_s([answer])
    return Prediction(
        id=row.id,
        prediction=texts if answer.turns > 1 else texts[-1],
        reference=row.reference,
        latency_s=sum(latencies_s) / len(latencies_s) if latencies_s else None,
        prompt_tokens=total_tokens([reply.prompt_tokens for reply in replies]),
        completion_tokens=total_tokens([reply.completion_tokens for reply in replies]),
        finish_reason=replies[-1].finish_reason if replies else None,
        failure=answer.failure,
    )


def responses_s(answers: Sequence[RowAnswer]) -> list[float]:
    """The latency of every response, in seconds."""
    return [part.reply.latency_s for answer in answers for part in answer.answers if part.reply is not None]


def received(answers: Sequence[RowAnswer]) -> list[Answer]:
    """The answers that came back, turn by turn."""
    return [part for answer in answers for part in answer.answers if part.reply is not None]


def total_tokens(counts: Sequence[int | None]) -> int | None:
    """Their sum; None where one of them is not known, or there are none."""
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None
