"""Evaluate a model of a finished job on rows of the user's own: `ml_client.models.evaluate`.

In: where the model lies, a data file, names of metrics. Out: a number a metric, with its interval. What it costs: each row is
asked once, in a process of its own as in a report; where rows have no gold answer the job's teacher is asked for one. Both are
kept in the user's data folder, so that the same question is never paid for twice, and a killed evaluation goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from potstill.errors import InputError, JobFailedError
from potstill.evaluation.comparison import Figure, MeasuredModel, mean_figure, score_model
from potstill.evaluation.judged import ACCEPTANCE_TASKS, Judged, judge_models
from potstill.evaluation.predictions import Measurement, read_predictions, read_profile
from potstill.evaluation.process import run_worker
from potstill.evaluation.report import ReferenceKind
from potstill.generation import RejectedRow
from potstill.inference import model_identity
from potstill.inference.budget import Ledger
from potstill.inference.protocol import Sampling
from potstill.judging import Judgement
from potstill.metrics import bleu
from potstill.pipeline.asking import answers_in_order, context_needed
from potstill.pipeline.corrected import first_teacher
from potstill.pipeline.evaluate import TOKEN_ACCURACY_TASKS, evaluated_way, measure_on_weights, reasons_first
from potstill.pipeline.folder import write_json
from potstill.pipeline.generate import needs_reference
from potstill.pipeline.opened_judge import opened_judge
from potstill.pipeline.progress import Progress
from potstill.pipeline.stage import SPLITS
from potstill.rows import Row, content_hash, read_rows, write_rows
from potstill.service.registry import Located
from potstill.service.settings import Settings
from potstill.spec import JudgeSpec
from potstill.tasks import Task, get_task
from potstill.tasks.reading import read_rows_of

ALWAYS = ("accuracy", "bleu_score", "inference_time")
_PROFILE = (
    "inference_time", "latency_p50", "latency_p95", "throughput_rps", "memory_bytes", "disk_bytes", "parameters",
    "cost_per_1k_requests",
)


class EvaluationResults(Mapping[str, "float | None"]):
    """A number a metric; None where it cannot be measured on this model.

    intervals: the 95 % interval of each metric that is a mean over rows. rows: how many rows were answered. reference: "gold",
    or "teacher" where the rows have no gold answers and the teacher's held-out ones took their place.
    """

    def __init__(self, model: str, rows: int, reference: ReferenceKind, figures: Mapping[str, Figure | float | None]) -> None:
        self.model, self.rows, self.reference = model, rows, reference
        self._values = {name: figure["value"] if isinstance(figure, dict) else figure for name, figure in figures.items()}
        self.intervals: dict[str, tuple[float, float]] = {
            name: (figure["ci95"][0], figure["ci95"][1]) for name, figure in figures.items() if isinstance(figure, dict)
        }

    def __getitem__(self, name: str) -> float | None:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={_shown(value)}" for name, value in self._values.items())
        return f"EvaluationResults({self.model!r}, {self.rows} rows: {told})"


def _shown(value: float | None) -> str:
    return "None" if value is None else f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class _Questions:
    """The rows with their references, and what the references are."""

    task: Task
    rows: list[Row]
    reference: ReferenceKind
    folder: Path


def evaluate(
    settings: Settings, located: Located, test_data: Path, metrics: Sequence[str] | None, progress: Progress
) -> EvaluationResults:
    """Measure a model on the rows of a file.

    Raises:
        InputError: the file cannot be read as rows of the job's task, or a metric is unknown.
        PotstillError: the model cannot be opened, or answers nothing.
    """
    task, rows = _read(located, test_data)
    judged = located.job.evaluation.judge is not None
    wanted = _wanted(task, metrics, judged=judged)
    questions = _with_references(settings, located, task, rows, progress)
    by_judge = judged and ("judge_score" in wanted or ("accuracy" in wanted and task.name in ACCEPTANCE_TASKS))
    measured = _measure(located, questions, progress, on_weights="accuracy" in wanted and not by_judge)
    if by_judge:
        measured = replace(measured, judgements=_judgements(located, questions, measured, progress))
    figures = _figures(measured, questions)
    return EvaluationResults(located.name, len(questions.rows), questions.reference, {name: figures[name] for name in wanted})


def _read(located: Located, test_data: Path) -> tuple[Task, list[Row]]:
    """The rows, and the task as the job's own rows and these make it."""
    task = get_task(located.job.task)
    rows = read_rows_of(test_data, task, on_bad_row="fail").rows
    files = [located.run.rows / f"{split}.jsonl" for split in SPLITS] if located.run is not None else []
    known = [row for file in files if file.is_file() for row in read_rows(file)]
    task = task.with_rows([*known, *rows])
    return task, list(map(task.settled, rows))


def _wanted(task: Task, metrics: Sequence[str] | None, *, judged: bool) -> list[str]:
    own = [*task.metrics, *ALWAYS, *(["judge_score"] if judged else [])]
    if metrics is None:
        return list(dict.fromkeys(own))
    known = [*own, *_PROFILE]
    unknown = [name for name in metrics if name not in known]
    if unknown:
        raise InputError("unknown metric", where="metrics", found=", ".join(unknown), expected=", ".join(dict.fromkeys(known)))
    return list(metrics)


def _with_references(
    settings: Settings, located: Located, task: Task, rows: list[Row], progress: Progress
) -> _Questions:
    """The rows as they are where all have gold answers, else with the answers of the job's teacher."""
    evaluations = settings.home / "evaluations"
    if not needs_reference(rows):
        return _Questions(task, rows, "gold", evaluations / _digest(located, task, rows))
    teacher = first_teacher(located.job, located.run)
    journal = evaluations / "references" / content_hash(dict(model_identity(teacher)))[:16]
    progress.begin(f"{teacher.name} answers for reference", len(rows))
    try:
        outcomes = answers_in_order(teacher, task, rows, located.job.generation, journal, progress.update, once=True)
    finally:
        progress.end()
    answered = [
        replace(row, reference=_answers(outcome[0], task)) for row, outcome in zip(rows, outcomes, strict=True)
        if not isinstance(outcome, RejectedRow)
    ]
    if not answered:
        raise JobFailedError("the teacher answered none of the test rows, which have no gold answers", found=teacher.name)
    return _Questions(task, answered, "teacher", evaluations / _digest(located, task, answered))


def _answers(row: Row, task: Task) -> str | list[str]:
    turns = [message.content for message in row.messages if message.role == "assistant"]
    return turns if task.name == "conversation" else turns[-1]


def _digest(located: Located, task: Task, rows: list[Row]) -> str:
    """What a measurement depends on."""
    return content_hash({
        "model": dict(model_identity(located.model)), "role": located.role, "task": task.name, "labels": task.labels,
        "rows": [row.as_dict() for row in rows], "max_tokens": located.job.generation.max_tokens,
        "worked": reasons_first(located.job.generation, located.role), "concurrency": located.job.evaluation.concurrency,
    })


def _measure(located: Located, questions: _Questions, progress: Progress, *, on_weights: bool) -> MeasuredModel:
    """Predictions and profile; what was measured before, to the end, is read."""
    folder, task, rows, job = questions.folder, questions.task, questions.rows, located.job
    worked = reasons_first(job.generation, located.role)
    self_agreement = questions.reference == "teacher" and located.role == "teacher"
    measurement = Measurement(
        label="model", model=located.model, rows=folder / "rows.jsonl", task=task.name, labels=task.labels,
        output=folder / "model.jsonl", journal=folder / "journal", untrained=located.role != "distilled", worked=worked,
        sampling=Sampling(temperature=0.0, max_tokens=job.generation.max_tokens), sample=1 if self_agreement else 0,
        concurrency=job.evaluation.concurrency,
        context=context_needed(evaluated_way(task, worked=worked), rows, job.generation.max_tokens),
    )
    if not measurement.profile.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(measurement.rows, rows)
        progress.begin(f"{located.name} answers", len(rows))
        try:
            run_worker(measurement, progress.update)
        finally:
            progress.end()
    accuracy = _token_accuracy(located, questions, progress) if on_weights else None
    return MeasuredModel(located.name, read_predictions(measurement.output), read_profile(measurement.profile), accuracy)


def _judgements(
    located: Located, questions: _Questions, measured: MeasuredModel, progress: Progress
) -> Sequence[Judgement]:
    """What the job's judge says of the answers; what was asked before is in its journal."""
    spec, label = located.job.evaluation.judge, "model"
    assert spec is not None
    longest = max(len("".join(entry.prediction).encode()) for entry in measured.predictions)

    async def ask(spec: JudgeSpec) -> Judged:
        async with opened_judge(
            spec, questions.task, questions.rows, questions.folder / "judge", answer_tokens=longest, ledger=Ledger(),
            say=progress.say,
        ) as judge:
            return await judge_models(
                judge.client, judge.name, judge.rubric, questions.rows, {label: measured.predictions}, pairwise=False,
                on_done=lambda done, total, what: progress.update(done, total),
            )

    progress.begin(f"the judge reads the answers of {located.name}", len(questions.rows))
    try:
        return asyncio.run(ask(spec)).judgements[label]
    finally:
        progress.end()


def _token_accuracy(located: Located, questions: _Questions, progress: Progress) -> list[float] | None:
    """Next-token accuracy a row, where that is what accuracy means and the weights are at hand."""
    if questions.task.name not in TOKEN_ACCURACY_TASKS or located.weights is None:
        return None
    file = questions.folder / "token_accuracy.json"
    if not file.is_file():
        progress.begin(f"next-token accuracy of {located.name}", len(questions.rows))
        on_done: Callable[[int, int], None] = progress.update
        try:
            shares = measure_on_weights(
                located.weights, questions.rows, questions.task, untrained=located.role != "distilled",
                scratch=questions.folder, on_done=on_done,
            )
        finally:
            progress.end()
        write_json(file, shares)
    found: list[float] | None = orjson.loads(file.read_bytes())
    return found


def _figures(measured: MeasuredModel, questions: _Questions) -> dict[str, Figure | float | None]:
    """Every figure there is of this model on these rows."""
    scored = score_model(measured, questions.rows, questions.task)
    costs = {name: value for name, value in asdict(measured.profile).items() if name in _PROFILE}
    figures: dict[str, Figure | float | None] = {**costs, **scored.figures}
    figures["bleu_score"] = figures.get("bleu") or _bleu(measured, questions)
    return figures


def _bleu(measured: MeasuredModel, questions: _Questions) -> Figure:
    """Sentence BLEU of the answers, averaged over the rows, for tasks that have it not among their own metrics."""
    by_id = {prediction.id: prediction.prediction for prediction in measured.predictions}
    said = [(by_id[row.id], row.references) for row in questions.rows]
    return mean_figure([bleu(text if isinstance(text, str) else text[-1], golds) for text, golds in said])
