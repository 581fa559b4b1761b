"""Stage 6, evaluate: teacher, untouched student and distilled student on the test rows, each in a fresh process.

In: exports/, rows/test.jsonl, and the teacher's held-out answers where the test rows have no gold. Out: evaluation/ with every
prediction, a profile a model (latency, memory, cost), a judge's verdicts where one is set, and metrics.json. A model whose
measurement is on disk is not measured again; a killed measurement goes on in its journal.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from potstill.catalog import ResolvedModel
from potstill.errors import JobFailedError
from potstill.evaluation.comparison import MeasuredModel
from potstill.evaluation.predictions import Measurement, read_predictions, read_profile
from potstill.evaluation.process import run_worker
from potstill.evaluation.report import ReferenceKind, ReportInputs, build_report
from potstill.evaluation.token_accuracy import measure_token_accuracy
from potstill.generation import ChainOfThought, Direct, Way
from potstill.inference import model_identity
from potstill.inference.protocol import Sampling
from potstill.pipeline.asking import budget_of, context_needed
from potstill.pipeline.corrected import read_correction, weights_of
from potstill.pipeline.export import baseline_path, export_path
from potstill.pipeline.fingerprint import fingerprint as digest_of
from potstill.pipeline.folder import write_json
from potstill.pipeline.generate import needs_reference
from potstill.pipeline.judge import judge_answers, judge_inputs
from potstill.pipeline.stage import Context
from potstill.pipeline.teachers import labels_of, with_kept
from potstill.pipeline.untouched import initial_student
from potstill.rows import Row, read_rows, write_rows
from potstill.spec import GenerationSpec
from potstill.spec_panel import file_name
from potstill.student import build_student
from potstill.tasks import Task

TOKEN_ACCURACY_TASKS = ("conversation", "text", "summarization")


class Evaluate:
    """Measures every model that the job names."""

    name = "evaluate"
    version = 2

    def inputs(self, context: Context) -> Mapping[str, Any]:
        folder = context.folder
        return {
            "exports": context.digests(folder.exports),
            "student": context.digests(folder.student / "model.safetensors"),
            "teachers": {label: dict(model_identity(model)) for label, model in labels_of(context.teachers).items()},
            "rows": context.digests(folder.rows),
            "references": context.digests(folder.generated / "test.jsonl"),
            "curated": context.digests(folder.curated / "train.jsonl"),
            "evaluation": context.job.evaluation.model_dump(mode="json"),
            "max_tokens": context.job.generation.max_tokens,
            **judge_inputs(context),
            "worked": [reasons_first(context.job.generation, label) for label in ("teacher", "distilled")],
        }

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        folder = context.folder
        folder.evaluation.mkdir(exist_ok=True)
        task, kind, rows = context.task(), *test_rows(context)
        write_rows(folder.evaluation / "rows.jsonl", rows)
        models = {label: measure(context, label, task, rows, kind) for label in measured_models(context)}
        judged = judge_answers(context, task, rows, models)
        context.progress.say("scoring the answers")
        training_rows = list(read_rows(folder.curated / "train.jsonl"))
        correction = read_correction(folder) if context.job.correction is not None else None
        report = build_report(
            ReportInputs(
                job=context.job.name,
                task=task,
                rows=rows,
                models=models,
                training_rows=training_rows,
                teachers=with_kept(_answered(context), training_rows, labels_of(context.teachers)),
                reference=kind,
                counts=counts(context),
                training=orjson.loads((folder.student / "training.json").read_bytes()),
                metrics=context.job.evaluation.metrics,
                judged=judged,
                correction=asdict(correction) if correction is not None else None,
            )
        )
        write_json(folder.evaluation / "metrics.json", report)
        return {"headline": report["headline"]}

    def outputs(self, context: Context) -> Iterable[Path]:
        return [path for path in context.folder.evaluation.iterdir() if path.is_file()]


def measured_models(context: Context) -> list[str]:
    """What the report calls the models that the job asks for, in its order; `teacher` stands for each of several."""
    wanted = context.job.evaluation.models
    return [label for name in wanted for label in (labels_of(context.teachers) if name == "teacher" else (name,))]


def is_untrained(label: str) -> bool:
    """Whether a model has to be told what the task is, because it did not learn it."""
    return label == "baseline" or label.partition(":")[0] == "teacher"


def _answered(context: Context) -> list[Mapping[str, Any]]:
    """What the generate stage says of each teacher."""
    summary: Mapping[str, Any] = (context.events.last_finished("generate") or {}).get("summary", {})
    return list(summary.get("teachers", ()))


def test_rows(context: Context) -> tuple[ReferenceKind, list[Row]]:
    """The test rows with their references: gold, or the teacher's held-out answers where not all rows have gold."""
    rows = context.rows("test")
    if not needs_reference(rows):
        return "gold", rows
    answered = {row.id: row for row in read_rows(context.folder.generated / "test.jsonl")}
    referenced = [replace(row, reference=_answers(answered[row.id], context)) for row in rows if row.id in answered]
    if not referenced:
        raise JobFailedError("the teacher answered none of the test rows", where="generated/rejected.jsonl says why")
    return "teacher", referenced


def _answers(row: Row, context: Context) -> str | list[str]:
    turns = [message.content for message in row.messages if message.role == "assistant"]
    return turns if context.job.task == "conversation" else turns[-1]


def measure(context: Context, label: str, task: Task, rows: list[Row], kind: ReferenceKind) -> MeasuredModel:
    """One model's predictions and profile; what is on disk for the same model and rows is not measured again."""
    folder, model = context.folder, model_of(context, label)
    max_tokens, worked = context.job.generation.max_tokens, reasons_first(context.job.generation, label)
    measurement = Measurement(
        label=label,
        model=model,
        rows=folder.evaluation / "rows.jsonl",
        task=context.job.task,
        labels=task.labels,
        output=folder.evaluation / f"{file_name(label)}.jsonl",
        journal=folder.journal / f"evaluate-{file_name(label)}",
        sampling=Sampling(temperature=0.0, max_tokens=max_tokens),
        untrained=is_untrained(label),
        worked=worked,
        sample=1 if kind == "teacher" and label == "teacher" else 0,
        concurrency=context.job.evaluation.concurrency,
        context=context_needed(evaluated_way(task, worked=worked), rows, max_tokens),
        budget=budget_of(context.job.generation) if label in labels_of(context.teachers) else None,
    )
    marker = folder.evaluation / f"{file_name(label)}.fingerprint"
    wanted = digest_of(
        label,
        Evaluate.version,
        {
            "model": dict(model_identity(model)),
            "rows": [row.as_dict() for row in rows],
            "labels": task.labels,
            "max_tokens": max_tokens,
            "worked": worked,
            "concurrency": measurement.concurrency,
        },
    )
    accuracy_file = folder.evaluation / f"{file_name(label)}.token_accuracy.json"
    there = all(path.is_file() for path in (marker, measurement.output, measurement.profile, accuracy_file))
    if not (there and marker.read_bytes() == wanted.encode()):
        context.progress.begin(f"measuring the {label}", len(rows))
        run_worker(measurement, context.advance)
        context.progress.end()
        write_json(accuracy_file, token_accuracy(context, label, task, rows, model))
        marker.write_text(wanted)
    return MeasuredModel(
        model.name if label in labels_of(context.teachers) else f"{context.student.name}, {label}",
        read_predictions(measurement.output),
        read_profile(measurement.profile),
        orjson.loads(accuracy_file.read_bytes()),
    )


def reasons_first(generation: GenerationSpec, label: str) -> bool:
    """Whether a model reasons before it answers: the teacher as it taught, the student as it learnt.

    The untouched student is asked for what the distilled one writes, so that the two differ in nothing but what was learnt.
    """
    return generation.chain_of_thought if label.partition(":")[0] == "teacher" else generation.rationale == "train"


def evaluated_way(task: Task, *, worked: bool) -> Way:
    """How a model is asked in an evaluation, for the length of the dialogue."""
    return ChainOfThought(task) if worked else Direct(task)


def model_of(context: Context, label: str) -> ResolvedModel:
    """What a label of `evaluation.models` stands for: the very file that a user would run, where there is one."""
    folder, formats = context.folder, context.job.export.formats
    teachers = labels_of(context.teachers)
    if label in teachers:
        return teachers[label]
    if label == "weights" or (label == "distilled" and not formats):
        return ResolvedModel("weights", "folder", path=folder.student)
    if label == "distilled":
        return ResolvedModel("distilled", "gguf", path=export_path(context, formats[0]))
    if formats:
        return ResolvedModel("baseline", "gguf", path=baseline_path(context))
    return ResolvedModel("baseline", "folder", path=initial_student(context))


def token_accuracy(
    context: Context, label: str, task: Task, rows: list[Row], model: ResolvedModel
) -> list[float] | None:
    """Next-token accuracy on the reference, measured on the weights behind a model; None where it has no meaning or they
    are not at hand."""
    if context.job.task not in TOKEN_ACCURACY_TASKS or model.served:
        return None
    weights = (weights_of(context.job, context.folder) or model) if label == "teacher" else model
    if label not in labels_of(context.teachers):
        path = initial_student(context) if label == "baseline" else context.folder.student
        weights = ResolvedModel(label, "folder", path=path)
    context.progress.begin(f"next-token accuracy of the {label}", len(rows))
    try:
        return measure_on_weights(
            weights, rows, task, untrained=is_untrained(label), scratch=context.folder.evaluation, on_done=context.advance
        )
    finally:
        context.progress.end()


def measure_on_weights(
    weights: ResolvedModel, rows: list[Row], task: Task, *, untrained: bool, scratch: Path, on_done: Callable[[int, int], None]
) -> list[float] | None:
    """Next-token accuracy a row; the weights of a GGUF file are unpacked into the folder `scratch` for as long as it takes."""
    if weights.kind != "gguf":
        return measure_token_accuracy(weights, rows, task, untrained=untrained, on_done=on_done)
    with tempfile.TemporaryDirectory(dir=scratch) as unpacked:
        build_student(weights, Path(unpacked), shrink=None)
        folder = ResolvedModel(weights.name, "folder", path=Path(unpacked))
        return measure_token_accuracy(folder, rows, task, untrained=untrained, on_done=on_done)


def counts(context: Context) -> dict[str, Any]:
    """How many rows there were at each step."""
    stages = {stage: context.events.last_finished(stage) or {} for stage in ("prepare", "generate", "curate")}
    summary = {stage: event.get("summary", {}) for stage, event in stages.items()}
    return {
        "rows": summary["prepare"].get("rows"),
        "dropped": summary["prepare"].get("dropped_count"),
        "answered": summary["generate"].get("answered"),
        "unanswered": summary["generate"].get("rejected"),
        "kept": summary["curate"].get("kept"),
        "rejected": summary["curate"].get("rejected"),
    }
