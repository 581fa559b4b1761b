"""Stage 4, train: the student learns from the kept rows.

In: curated/, the untouched student, and the teacher's signals where the loss compares with them. Out: student/ in the hub's own
layout, student/checkpoints/, student/training.json. A killed training goes on from its newest whole checkpoint; checkpoints of
other settings or rows are removed first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from potstill.inference import model_identity
from potstill.pipeline.folder import claim, write_json
from potstill.pipeline.lessons import lessons_of
from potstill.pipeline.stage import Context
from potstill.pipeline.teaching import teaching_of
from potstill.pipeline.together import Assignment, train
from potstill.pipeline.untouched import initial_student
from potstill.spec import JobSpec, TrainingSpec
from potstill.training import TrainingResult
from potstill.training.launching import launch_of


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


def _taught(context: Context) -> tuple[JobSpec, Path] | None:
    return (context.job, context.folder.root) if context.job.training.method == "kd" else None
