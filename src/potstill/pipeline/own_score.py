"""Part of stage correct: how right a teacher is by gold answers, asked as the report asks models.

In: a model on this machine and prepared rows with gold answers. Out: the task's main metric, with its interval. Cost: one
greedy answer a row and turn that the journal does not hold yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.catalog import ResolvedModel
from potstill.evaluation.answering import to_prediction
from potstill.evaluation.comparison import mean_figure
from potstill.generation import ChainOfThought, Direct
from potstill.inference import Client, Journal, open_engine
from potstill.inference.account import Account
from potstill.inference.budget import Ledger
from potstill.inference.client import run_all
from potstill.inference.dialogue import RowAnswer, answer_row
from potstill.inference.protocol import Sampling
from potstill.pipeline.asking import LOCAL_SLOTS, context_needed
from potstill.rows import Row
from potstill.tasks import Task


@dataclass(frozen=True, slots=True)
class Asked:
    """How a teacher is asked: whether it is to reason first, the most tokens of an answer, and whose budget they count in."""

    task: Task
    reasons: bool
    max_tokens: int
    ledger: Ledger


def own_score(
    model: ResolvedModel, rows: Sequence[Row], asked: Asked, journal_folder: Path, on_done: Callable[[int, int], None]
) -> dict[str, Any]:
    """{"value", "ci95", "n"} of the main metric; an answer that is missing or cannot be read is a wrong one.

    No closed label set is enforced, so that what two engines give can be compared.

    Raises:
        BudgetError: the run's budget is used up; what came is in the journal.
        InputError: the model cannot be opened.
    """
    answers = asyncio.run(_answers(model, rows, asked, journal_folder, on_done))
    predictions = [to_prediction(row, answer).prediction for row, answer in zip(rows, answers, strict=True)]
    return mean_figure(asked.task.score(predictions, rows).per_row[asked.task.main_metric])


async def _answers(
    model: ResolvedModel, rows: Sequence[Row], asked: Asked, journal_folder: Path, on_done: Callable[[int, int], None]
) -> list[RowAnswer]:
    """One a row, in their order."""
    task, found = asked.task, dict[int, RowAnswer]()
    way = ChainOfThought(task) if asked.reasons else Direct(task)
    sampling = Sampling(temperature=0.0, max_tokens=asked.max_tokens if asked.reasons else task.max_tokens(asked.max_tokens))
    concurrency = model.concurrency or LOCAL_SLOTS
    size = context_needed(way, rows, asked.max_tokens)
    with Journal(journal_folder) as journal:
        engine = await asyncio.to_thread(open_engine, model, concurrency=concurrency, context=size)
        client = Client(engine, journal, concurrency=concurrency, account=Account.of(model, asked.ledger))

        async def work(queue: Iterator[tuple[int, Row]]) -> None:
            for number, row in queue:
                messages = task.worked_messages(row) if asked.reasons else task.teacher_messages(row)
                found[number] = await answer_row(client, messages, task.turns(row), sampling)
                on_done(len(found), len(rows))

        try:
            queue = iter(enumerate(rows))
            await run_all(work(queue) for _ in range(min(concurrency, len(rows))))
        finally:
            await engine.aclose()
    return [found[number] for number in range(len(rows))]
