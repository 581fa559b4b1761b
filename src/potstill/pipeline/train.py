"""Stage 4, train: the student learns from the kept rows.

In: curated/ and the untouched student. Out: student/ in the hub's own layout, student/checkpoints/, student/training.json, and
where the loss compares them the teacher's hidden states, under signals/: of which layers follows from the untouched student. A
killed training goes on from its newest whole checkpoint; checkpoints of other settings or rows are removed first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from potstill.catalog import ResolvedModel
from potstill.inference import model_identity
from potstill.pipeline.capture import read_answers
from potstill.pipeline.folder import claim, write_json
from potstill.pipeline.lessons import lessons_of
from potstill.pipeline.stage import Context
from potstill.pipeline.teaching import layers_header_of, teaching_of, view_of
from potstill.pipeline.together import Assignment, train
from potstill.rows import Row, read_rows
from potstill.spec import JobSpec, ShrinkSpec, TrainingSpec
from potstill.student import build_student
from potstill.templates import ChatTemplate
from potstill.training import TrainingResult
from potstill.training.launching import launch_of

CALIBRATION_ROWS = 64


class Train:
    """Builds the student and trains it."""

    name = "train"
    version = 1

    def inputs(self, context: Context) -> Mapping[str, Any]:
        student = context.job.student
        return {
            "curated": context.digests(context.folder.curated / "train.jsonl", context.folder.curated / "validation.jsonl"),
            "student": dict(model_identity(context.student)),
            "shrink": student.shrink.model_dump() if student.shrink else None,
            "adapter": student.adapter.model_dump() if student.adapter else None,
            "training": _settings_of(context.job.training),
            **({"teacher": dict(model_identity(context.teacher_weights))} if context.job.training.method == "kd" else {}),
            "rationale": context.job.generation.rationale,
            "task": context.job.task,
        }

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        folder = context.folder
        claim(folder.student, fingerprint)
        start = initial_student(context)
        _keep_layers(context, start)
        spec, adapter = context.job.training, context.job.student.adapter
        work = Assignment(start, folder.student, lessons_of(context), spec, adapter, _taught(context))
        launch = launch_of(spec)
        with teaching_of(context, start) if launch is None else nullcontext() as teaching:
            context.progress.begin("training", None)
            try:
                result = train(
                    work, launch, on_event=relay(context, self.name), should_stop=context.canceled, teaching=teaching
                )
            finally:
                context.progress.end()
        write_json(folder.student / "training.json", asdict(result))
        self._tell(context, result)
        return {"best_validation_loss": result.best_validation_loss, "best_epoch": result.best_epoch}

    def _tell(self, context: Context, result: TrainingResult) -> None:
        note = "; validation loss rose while training loss fell: the best checkpoint was kept" if result.overfitting else ""
        best = f"best validation loss {result.best_validation_loss:.3f} after epoch {result.best_epoch:g}"
        context.progress.say(f"trained: {best}{note}")

    def outputs(self, context: Context) -> Iterable[Path]:
        student = context.folder.student
        return [path for path in student.iterdir() if path.is_file() and path.name != "fingerprint"]


def relay(context: Context, stage: str) -> Callable[[str, Mapping[str, Any]], None]:
    """Passes on what a training tells (`train_student`): to whoever watches, and as events of the stage."""

    def on_event(kind: str, values: Mapping[str, Any]) -> None:
        if kind == "progress":
            detail = f"loss {values['loss']:.3f}" if values.get("loss") is not None else ""
            context.progress.update(int(values["step"]), int(values["total_steps"]), detail)
            values = {key: value for key, value in values.items() if key not in ("total_steps", "eta_s")}
        context.events.append("step" if kind == "progress" else kind, stage=stage, **values)

    return on_event


def _settings_of(training: TrainingSpec) -> dict[str, Any]:
    """What has an effect on the result; distributions are a matter of the methods that compare them.

    How many processes there are has one: a step sees more rows. Where that follows from the machine it is left out, as a
    finished run may move to another one.
    """
    without = {"signal", "jsd_beta", "skew", "temperature"} if training.method == "sft" else set()
    several = {} if training.processes in ("auto", 1) else {"processes": training.processes}
    return training.model_dump(mode="json", exclude={"trackers", "processes", "launch", *without}) | several


def _keep_layers(context: Context, student: Path) -> None:
    """Have the teacher read the answers once for the hidden states that this student is compared with, where they are kept."""
    if not context.job.training.captures_layers:
        return
    from potstill.signals.store import SignalStore

    view = view_of(context)
    header = layers_header_of(context, view, student)
    with SignalStore(context.folder.signals / header.folder_name, header, writable=True) as store:
        read_answers(context, store, view)


def _taught(context: Context) -> tuple[JobSpec, Path] | None:
    return (context.job, context.folder.root) if context.job.training.method == "kd" else None


def initial_student(context: Context) -> Path:
    """The untouched student as a folder in the hub's layout; built once where it is not one already."""
    model, shrink = context.student, context.job.student.shrink
    if model.kind == "folder" and shrink is None and model.path is not None:
        return model.path
    target = context.folder.initial_student
    if not (target / "config.json").is_file():
        context.progress.say("building the student")
        build_initial_student(model, target, shrink, read_rows(context.folder.curated / "train.jsonl"))
    return target


def build_initial_student(model: ResolvedModel, target: Path, shrink: ShrinkSpec | None, rows: Iterable[Row]) -> None:
    """Write the untouched student to `target`; the first of the rows, as its template renders them, guide the shrinking."""
    texts = []
    if model.path is not None:
        template = ChatTemplate.from_gguf(model.path) if model.kind == "gguf" else ChatTemplate.from_folder(model.path)
        texts = [template.render(row.messages, add_generation_prompt=False) for row in islice(rows, CALIBRATION_ROWS)]
    build_student(model, target, shrink=shrink, calibration=texts)
