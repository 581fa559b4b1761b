"""Stage 6, evaluate: teacher, untouched student and distilled student on the test rows, each in a fresh process.

In: exports/, rows/test.jsonl, and the teacher's held-out answers where the test rows have no gold. Out: evaluation/ with every
prediction, a profile a model (latency, memory, cost), and metrics.json. A model whose measurement is on disk is not measured
again; a killed measurement goes on in its journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from potstill.catalog import ResolvedModel
from potstill.evaluation.comparison import MeasuredModel
from potstill.evaluation.predictions import Measurement, Profile, read_predictions, read_profile
from potstill.evaluation.process import run_worker
from potstill.evaluation.report import ReportInputs, build_report
from potstill.evaluation.token_accuracy import measure_token_accuracy
from potstill.inference import model_identity, open_engine
from potstill.inference.protocol import Sampling
from potstill.pipeline.export import baseline_path, export_path
from potstill.pipeline.fingerprint import fingerprint as digest_of
from potstill.pipeline.generate import context_needed, needs_reference
from potstill.pipeline.stage import Context
from potstill.pipeline.train import initial_student
from potstill.rows import Row, read_rows, write_rows

TOKEN_ACCURACY_TASKS = ("conversation", "text", "summarization")


class Evaluate:
    """Measures every model that the job names."""

    name = "evaluate"
    version = 1

    def inputs(self, context: Context) -> Mapping[str, Any]:
        folder = context.folder
        return {
            "exports": context.digests(folder.exports),
            "student": context.digests(folder.student / "model.safetensors"),
            "teacher": dict(model_identity(context.teacher)),
            "rows": context.digests(folder.rows),
            "references": context.digests(folder.generated / "test.jsonl"),
            "curated": context.digests(folder.curated / "train.jsonl"),
            "evaluation": context.job.evaluation.model_dump(mode="json"),
            "max_tokens": context.job.generation.max_tokens,
        }

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        folder = context.folder
        folder.evaluation.mkdir(exist_ok=True)
        rows, kind = test_rows(context)
        write_rows(folder.evaluation / "rows.jsonl", rows)
        measured = {label: self._measure(context, label, rows, kind) for label in context.job.evaluation.models}
        inputs = ReportInputs(
            job=context.job.name,
            task=context.task(),
            rows=rows,
            models=measured,
            training_rows=list(read_rows(folder.curated / "train.jsonl")),
            reference="teacher" if kind == "teacher" else "gold",
            counts=_counts(context),
            training=orjson.loads((folder.student / "training.json").read_bytes()),
            metrics=context.job.evaluation.metrics,
        )
        report = build_report(inputs)
        (folder.evaluation / "metrics.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
        return {"headline": report["headline"]}

    def _measure(self, context: Context, label: str, rows: list[Row], kind: str) -> MeasuredModel:
        folder = context.folder
        model = _model(context, label)
        task = context.task()
        untrained = label in ("teacher", "baseline")
        measurement = Measurement(
            label=label,
            model=model,
            rows=folder.evaluation / "rows.jsonl",
            task=context.job.task,
            labels=task.labels,
            output=folder.evaluation / f"{label}.jsonl",
            journal=folder.journal / f"evaluate-{label}",
            sampling=Sampling(temperature=0.0, max_tokens=context.job.generation.max_tokens),
            untrained=untrained,
            sample=1 if kind == "teacher" and label == "teacher" else 0,
            concurrency=context.job.evaluation.concurrency,
            context=context_needed(task, rows, context.job.generation.max_tokens),
        )
        marker = folder.evaluation / f"{label}.fingerprint"
        wanted = digest_of(label, self.version, {"model": dict(model_identity(model)), "measurement": _content(context, measurement)})
        if not (marker.is_file() and marker.read_text() == wanted and measurement.profile.is_file()):
            context.progress.begin(f"measuring the {label}", len(rows))
            run_worker(measurement, lambda done, total: context.progress.update(done, total))
            context.progress.end()
            marker.write_text(wanted)
        profile: Profile = read_profile(measurement.profile)
        accuracy = self._token_accuracy(context, label, rows, model)
        return MeasuredModel(model.name, read_predictions(measurement.output), profile, accuracy)

    def _token_accuracy(self, context: Context, label: str, rows: list[Row], model: ResolvedModel) -> list[float] | None:
        if context.job.task not in TOKEN_ACCURACY_TASKS or model.kind == "endpoint":
            return None
        weights = {"distilled": context.folder.student, "weights": context.folder.student}
        folder = weights.get(label) or (initial_student(context) if label == "baseline" else None)
        return measure_token_accuracy(context, label, rows, folder, model)

    def outputs(self, context: Context) -> Iterable[Path]:
        return [path for path in context.folder.evaluation.iterdir() if path.is_file()]
