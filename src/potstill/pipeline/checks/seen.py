"""What several looks at one job need: its rows, its models, each read once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property

from potstill.catalog import ResolvedModel, resolve, resolve_teachers
from potstill.errors import PotstillError
from potstill.inference.identity import cached_folder
from potstill.pipeline.prepare import planned_splits, read_job_rows
from potstill.rows import Row
from potstill.spec import JobSpec, ModelSpec
from potstill.tasks import Task, get_task

_BEFORE_TRAINING = ("prepare", "correct", "generate", "curate")
# What a look tells: a text where something is in order, an error where it is not; it goes on after errors where it can.
Told = str | PotstillError


class Seen:
    """A job that is looked at. What cannot be read raises a PotstillError each time it is asked for.

    trains: whether the run is to get as far as opening the student; it may do so later, on another machine. corrects: whether
    it is to get as far as tuning its teacher, and does.
    """

    def __init__(self, job: JobSpec, until: str | None = None) -> None:
        self.job = job
        self.trains = until not in _BEFORE_TRAINING
        self.corrects = job.correction is not None and until != "prepare"

    @cached_property
    def teachers(self) -> tuple[ResolvedModel, ...]:
        return resolve_teachers(self.job)

    @property
    def teacher(self) -> ResolvedModel:
        """The first of them."""
        return self.teachers[0]

    @cached_property
    def student(self) -> ResolvedModel:
        return resolve(self.job.student)

    @cached_property
    def judge(self) -> ResolvedModel | None:
        """The model that judges the answers, where the job names one."""
        return None if self.job.evaluation.judge is None else resolve(self.job.evaluation.judge)

    @cached_property
    def student_files(self) -> ResolvedModel | None:
        """The student as files on this machine; None for an endpoint, and for a model of the hub that is not here yet."""
        return as_files(self.student)

    @cached_property
    def splits(self) -> dict[str, list[Row]]:
        """The rows of each split, as a first run makes them."""
        return planned_splits(read_job_rows(self.job))

    @cached_property
    def task(self) -> Task:
        """The task, knowing the label set of the rows."""
        return get_task(self.job.task).with_rows([row for rows in self.splits.values() for row in rows])


def as_files(model: ResolvedModel) -> ResolvedModel | None:
    """A model as files on this machine, None where it is not here."""
    if model.kind == "hub":
        folder = cached_folder(model)
        if folder is None:
            return None
        found = resolve(ModelSpec(path=str(folder)))
        return replace(found, name=model.name, context_window=model.context_window or found.context_window)
    return None if model.kind == "endpoint" else model


def at_key(key: str, told: Iterable[Told]) -> Iterator[Told]:
    """The same; what is wrong and names no place of its own stands at this key of the job file."""
    place = f"key '{key}' of the job file"
    try:
        for one in told:
            if isinstance(one, PotstillError):
                one.where = one.where or place
            yield one
    except PotstillError as error:
        error.where = error.where or place
        raise
