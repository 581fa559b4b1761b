"""Part of stage 6, evaluate: the job's judge on every model's answers.

In: the test rows and the predictions. Out: evaluation/judgements.jsonl with every verdict, and what the report says of them.
Cost: one request a row and model, and two a row and comparison; the journal keeps them, so that none is paid for twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from potstill.catalog import ResolvedModel, resolve
from potstill.evaluation.comparison import MeasuredModel
from potstill.evaluation.judged import Judged, judge_models, judgement_lines
from potstill.inference import Client, Journal, model_identity, open_engine
from potstill.inference.budget import Account, Ledger
from potstill.judging import LOCAL_TOKENS, Rubric, make_rubric
from potstill.pipeline.asking import LOCAL_SLOTS, budget_of, context_needed
from potstill.pipeline.stage import Context
from potstill.rows import Row, write_jsonl
from potstill.tasks import Task

_PROMPT_TOKENS = 512  # of the judge's own prompt, its criteria aside
VERSION = 1  # of what a judge is asked, and how it is read


def judge_inputs(context: Context) -> Mapping[str, Any]:
    """What a judge's verdicts depend on beside the answers and the job's settings; empty where there is none."""
    spec = context.job.evaluation.judge
    return {} if spec is None else {"judge": {"model": dict(model_identity(resolve(spec))), "version": VERSION}}


def judge_answers(
    context: Context, task: Task, rows: Sequence[Row], models: Mapping[str, MeasuredModel]
) -> Judged | None:
    """Every verdict on the models' answers; None where the job has no judge.

    Raises:
        BudgetError: the job's budget is used up; what came is in the journal.
        EndpointError: the judge's endpoint refuses every request or does not answer at all; what came is in the journal.
        InputError: a key, a file or an extra is missing, or the judge cannot be opened.
    """
    spec, path = context.job.evaluation.judge, context.folder.evaluation / "judgements.jsonl"
    if spec is None:
        path.unlink(missing_ok=True)
        return None
    judge, rubric = resolve(spec), make_rubric(task, spec.rubric, spec.scale)
    context.progress.begin(f"{judge.name} judges", None)
    try:
        judged = asyncio.run(_ask(context, judge, rubric, rows, models, pairwise=spec.pairwise))
    finally:
        context.progress.end()
    write_jsonl(path, judgement_lines(judged, rows))
    return judged


async def _ask(
    context: Context, judge: ResolvedModel, rubric: Rubric, rows: Sequence[Row], models: Mapping[str, MeasuredModel], *,
    pairwise: bool,
) -> Judged:
    concurrency = judge.concurrency or (None if judge.kind == "endpoint" else LOCAL_SLOTS)
    predictions = {label: model.predictions for label, model in models.items()}
    with Journal(context.folder.journal / "judge") as journal:
        size = _context_size(rubric, rows, models)
        engine = await asyncio.to_thread(open_engine, judge, concurrency=concurrency, context=size)
        try:
            ledger = Ledger.of_run(context.folder.journal, budget_of(context.job.generation), judge.price)
            client = Client(engine, journal, concurrency=concurrency, account=Account.of(judge, ledger))
            return await judge_models(client, judge.name, rubric, rows, predictions, pairwise=pairwise, on_done=context.advance)
        finally:
            await engine.aclose()


def _context_size(rubric: Rubric, rows: Sequence[Row], models: Mapping[str, MeasuredModel]) -> int:
    """Tokens of context that a judge on this machine needs: the longest row, and twice the longest answer."""
    said = [entry.prediction for model in models.values() for entry in model.predictions]
    texts = ["".join(answer) for answer in said]
    longest = max((len(text.encode()) for text in texts), default=0)
    own = _PROMPT_TOKENS + len(rubric.criteria.encode()) // 2 + LOCAL_TOKENS
    return context_needed(rubric.task, rows, 0) + longest + own
