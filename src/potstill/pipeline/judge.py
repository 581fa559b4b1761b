"""Part of stage 6, evaluate: the job's judge on every model's answers.

In: the test rows and the predictions. Out: evaluation/judgements.jsonl with every verdict, and what the report says of them.
Cost: one request a row and model, and two a row and comparison; the journal keeps them, so that none is paid for twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from potstill.catalog import resolve
from potstill.evaluation.comparison import MeasuredModel
from potstill.evaluation.judged import Judged, judge_models, judgement_lines
from potstill.inference import model_identity
from potstill.inference.budget import Ledger
from potstill.pipeline.asking import budget_of
from potstill.pipeline.opened_judge import opened_judge
from potstill.pipeline.stage import Context
from potstill.rows import Row, write_jsonl
from potstill.spec import JudgeSpec
from potstill.tasks import Task

VERSION = 1  # of what a judge is asked, and how it is read


def judge_inputs(context: Context) -> Mapping[str, Any]:
    """What a judge's scores depend on beside the answers; empty where there is none."""
    spec = context.job.evaluation.judge
    if spec is None:
        return {}
    model = dict(model_identity(resolve(spec)))
    return {"judge": {"model": model, "rubric": spec.rubric, "scale": spec.scale, "version": VERSION}}


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
    name = resolve(spec).name
    context.progress.begin(f"{name} judges", None)
    try:
        judged = asyncio.run(_ask(context, spec, task, rows, models))
    finally:
        context.progress.end()
    write_jsonl(path, judgement_lines(judged, rows))
    return judged


async def _ask(
    context: Context, spec: JudgeSpec, task: Task, rows: Sequence[Row], models: Mapping[str, MeasuredModel]
) -> Judged:
    predictions = {label: model.predictions for label, model in models.items()}
    said = ["".join(entry.prediction) for entries in predictions.values() for entry in entries]
    # Two answers are shown at once, and a token has two bytes at least, as `context_needed` has it.
    longest = max((len(text.encode()) for text in said), default=0)
    journals = context.folder.journal
    ledger = Ledger.of_run(journals, budget_of(context.job.generation), resolve(spec).price)
    async with opened_judge(
        spec, task, rows, journals / "judge", answer_tokens=longest, ledger=ledger, say=context.progress.say
    ) as judge:
        return await judge_models(
            judge.client, judge.name, judge.rubric, rows, predictions, pairwise=spec.pairwise, on_done=context.advance
        )
