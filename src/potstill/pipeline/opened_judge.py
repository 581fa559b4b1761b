"""A judge that can be asked: its engine, its journal, its rubric."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from potstill.catalog import resolve
from potstill.generation import Direct
from potstill.inference import Client, Journal, open_engine
from potstill.inference.account import Account
from potstill.inference.budget import Ledger
from potstill.judging import LOCAL_TOKENS, Rubric, make_rubric
from potstill.pipeline.asking import LOCAL_SLOTS, context_needed
from potstill.rows import Row
from potstill.spec import JudgeSpec
from potstill.tasks import Task

PROMPT_TOKENS = 512  # of the judge's own prompt, its criteria aside


@dataclass(frozen=True, slots=True)
class OpenJudge:
    """A judge, what its user calls it, and what it is told to look for."""

    name: str
    client: Client
    rubric: Rubric


@asynccontextmanager
async def opened_judge(
    spec: JudgeSpec, task: Task, rows: Iterable[Row], journal_folder: Path, *, answer_tokens: int, ledger: Ledger,
    say: Callable[[str], None],
) -> AsyncIterator[OpenJudge]:
    """The judge behind the journal in this folder, closed at the end.

    Args:
        rows: Those it will be asked about: a model on this machine needs room for the longest.
        answer_tokens: A bound for the answers that one question shows.
        ledger: What it spends is taken from.
        say: See `open_engine`.

    Raises:
        InputError: a key, a file or an extra is missing, or the judge cannot be opened.
    """
    model, rubric = resolve(spec), make_rubric(task, spec.rubric, spec.scale)
    concurrency = model.concurrency or (None if model.served else LOCAL_SLOTS)
    own = PROMPT_TOKENS + len(rubric.criteria.encode()) // 2 + LOCAL_TOKENS
    size = context_needed(Direct(task), rows, 0) + answer_tokens + own
    with Journal(journal_folder) as journal:
        account = Account.of(model, ledger)
        engine = await asyncio.to_thread(
            open_engine, model, concurrency=concurrency, context=size, folder=journal_folder, say=say
        )
        try:
            yield OpenJudge(model.name, Client(engine, journal, concurrency=concurrency, account=account), rubric)
        finally:
            await engine.aclose()
