"""report.json: every figure of a run in one mapping.

What goes in: the measured models, the test rows with their references, the rows training read, and what earlier stages counted.
What comes out: plain JSON values. No model is asked; scoring takes about a millisecond a row, model and metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from potstill.evaluation.comparison import (
    MeasuredModel,
    ScoredModel,
    difference_figure,
    headline,
    mean_figure,
    model_entry,
    score_model,
)
from potstill.evaluation.constant import best_constant
from potstill.evaluation.environment import describe_environment
from potstill.evaluation.judged import Judged, judge_figures
from potstill.rows import Row
from potstill.tasks import Task

ReferenceKind = Literal["gold", "teacher"]

_MEMORY = "memory: growth of resident memory in a fresh process, from before the model is loaded to the peak while it answers"
_LATENCY = "latency: one request at a time, as seen by the process that asks"
_SELF_AGREEMENT = (
    "reference: the teacher's held-out answers; the teacher's own figure is a second answer of it scored against the first "
    "(self-agreement), and retention is measured against that"
)
_TOKEN_ACCURACY = "accuracy: next-token accuracy on the reference, measured on the unquantised weights"
_ACCEPTANCE = "accuracy: the share of answers that the judge accepts; it is shown neither references nor who wrote an answer"


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """What a report is made of.

    rows: the test rows, each with its reference. training_rows: what training read, answers last. reference: whether the
    references are gold or the teacher's held-out answers. counts: rows by split, kept and rejected by rule. training: the
    training's summary, None where nothing was trained. teachers: how each answered the rows to learn from, and its share of
    those that training read. metrics: "auto", or the task's metrics to show. judged: what a judge said of all models, where
    one is set.
    """

    job: str
    task: Task
    rows: Sequence[Row]
    models: Mapping[str, MeasuredModel]
    training_rows: Sequence[Row]
    reference: ReferenceKind
    counts: Mapping[str, Any]
    training: Mapping[str, Any] | None = None
    teachers: Sequence[Mapping[str, Any]] = ()
    metrics: Sequence[str] | Literal["auto"] = "auto"
    judged: Judged | None = None
    correction: Mapping[str, Any] | None = None


def build_report(inputs: ReportInputs) -> dict[str, Any]:
    """The content of report.json."""
    task, rows, judged = inputs.task, inputs.rows, inputs.judged
    models = {
        label: model if judged is None else replace(model, judgements=judged.judgements[label])
        for label, model in inputs.models.items()
    }
    scored = {label: score_model(model, rows, task) for label, model in models.items()}
    shown = {label: _chosen(score, inputs) for label, score in scored.items()}
    return {
        "name": inputs.job,
        "task": task.name,
        "main_metric": task.main_metric,
        "headline": headline(inputs.models, scored, task.main_metric),
        "models": {label: model_entry(model, shown[label]) for label, model in inputs.models.items()},
        "teachers": [dict(teacher) for teacher in inputs.teachers],
        "correction": dict(inputs.correction) if inputs.correction is not None else None,
        "reference": inputs.reference,
        "teacher_figure": "self_agreement" if inputs.reference == "teacher" else "gold",
        "best_constant": _compare_with_constant(inputs, scored.get("distilled")),
        "judge": None if judged is None else _judge(judged, inputs),
        "assumptions": _assumptions(inputs, scored),
        "test_rows": len(rows),
        "counts": dict(inputs.counts),
        "training": dict(inputs.training) if inputs.training is not None else None,
        "environment": describe_environment(),
    }


def _judge(judged: Judged, inputs: ReportInputs) -> dict[str, Any]:
    predictions = {label: model.predictions for label, model in inputs.models.items()}
    return judge_figures(judged, inputs.rows, predictions, inputs.task, gold=inputs.reference == "gold")


def _chosen(scored: ScoredModel, inputs: ReportInputs) -> ScoredModel:
    """The metrics that the job asks for; the main metric, accuracy and the judge's score are always shown."""
    if inputs.metrics == "auto":
        return scored
    wanted = {*inputs.metrics, inputs.task.main_metric, "accuracy", "judge_score"}
    return replace(scored, figures={name: figure for name, figure in scored.figures.items() if name in wanted})


def _compare_with_constant(inputs: ReportInputs, distilled: ScoredModel | None) -> dict[str, Any] | None:
    """The best constant answer on the test rows, and how much better the distilled model is, paired by row."""
    task, rows = inputs.task, inputs.rows
    answer = best_constant(_training_answers(inputs), task.main_metric)
    if answer is None:
        return None
    score = task.score([_said_at_every_turn(answer, task.turns(row)) for row in rows], rows).per_row[task.main_metric]
    gain = None if distilled is None else difference_figure(distilled.per_row[task.main_metric], score)
    return {"answer": answer, **mean_figure(score), "gain": gain}


def _training_answers(inputs: ReportInputs) -> list[str]:
    """Every answer that the student learnt, in its normal form: of each row the turns that its task asks for."""
    answers: list[str] = []
    for row in inputs.training_rows:
        said = [message.content for message in row.messages if message.role == "assistant"]
        for text in said[-inputs.task.turns(row) :]:
            value = inputs.task.parse(text, row).value
            answers.extend([value] if value is not None else [])
    return answers


def _said_at_every_turn(answer: str, turns: int) -> str | list[str]:
    return answer if turns == 1 else [answer] * turns


def _assumptions(inputs: ReportInputs, scored: Mapping[str, ScoredModel]) -> list[str]:
    """What the figures rest on, in words a reader of the report needs."""
    notes = [_MEMORY, _LATENCY]
    for label, model in inputs.models.items():
        notes.extend(f"{label}: {assumption}" for assumption in model.profile.assumptions)
    if inputs.correction is not None:
        notes.append(_corrected(inputs.correction))
    if inputs.reference == "teacher":
        notes.append(_SELF_AGREEMENT)
    if any((score.figures["accuracy"] or {}).get("measured_on") == "weights" for score in scored.values()):
        notes.append(_TOKEN_ACCURACY)
    if any((score.figures["accuracy"] or {}).get("measured_by") == "judge" for score in scored.values()):
        notes.append(_ACCEPTANCE)
    return notes


def _corrected(correction: Mapping[str, Any]) -> str:
    before, after = correction["score_before"], correction["score_after"]
    return (
        f"teacher: tuned on {correction['train_rows']} gold answers of the training rows before it taught; on validation rows "
        f"its loss fell from {correction['loss_before']:.3f} to {correction['loss_after']:.3f} nats a token, and "
        f"{correction['metric']} went from {before['value']:.3f} to {after['value']:.3f} (n = {after['n']}); it saw no test row"
    )
