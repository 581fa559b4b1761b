"""Part of stage 2, generate: the job's judge chooses among the answers to a row that no gold answer tells apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain

from potstill.generation import Judge
from potstill.inference.budget import Ledger
from potstill.judging import score_answer
from potstill.pipeline.opened_judge import opened_judge
from potstill.pipeline.stage import Context
from potstill.pipeline.teachers import is_told_by_gold, selection_of
from potstill.rows import Row
from potstill.tasks import Task


@asynccontextmanager
async def choosing_judge(context: Context, task: Task, ledger: Ledger) -> AsyncIterator[Judge | None]:
    """Scores answers, so that the best can be kept; closed at the end. None where no row needs it.

    What it costs: one request an answer to a row that gold does not tell; the judge's journal keeps them.

    Args:
        ledger: Of the run: the teachers are asked at the same time.

    Raises:
        InputError: a key, a file or an extra is missing, or the judge cannot be opened.
    """
    spec, generation = context.job.evaluation.judge, context.job.generation
    if spec is None or selection_of(generation) != "best" or not _is_needed(context, task):
        yield None
        return
    rows, folder = chain(context.stream("train"), context.stream("validation")), context.folder.journal / "judge"
    async with opened_judge(
        spec, task, rows, folder, answer_tokens=generation.max_tokens * _most_turns(context, task), ledger=ledger,
        say=context.progress.say,
    ) as judge:

        async def score(row: Row, texts: Sequence[str]) -> float | None:
            said = list(texts) if len(texts) > 1 else texts[0]
            return (await score_answer(judge.client, row, said, judge.rubric)).score

        yield score


def _is_needed(context: Context, task: Task) -> bool:
    if context.job.generation.mode == "prompts":
        return True
    return any(not is_told_by_gold(row, task) for split in ("train", "validation") for row in context.stream(split))


def _most_turns(context: Context, task: Task) -> int:
    return max(task.turns(row) for split in ("train", "validation") for row in context.stream(split))
