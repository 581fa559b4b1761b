"""The corrected teacher of a run: where it lies, what it is called, and what its correction has brought.

What stage `correct` leaves in teacher/ of the run folder takes the teacher's place in all that comes after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from potstill.catalog import ResolvedModel, resolve, resolve_teachers
from potstill.errors import CorruptFileError, InputError
from potstill.pipeline.folder import RunFolder, write_json
from potstill.spec import JobSpec, ModelSpec

RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Correction:
    """What the correction of a teacher came to.

    file: the GGUF file in teacher/ that answers; None where the weights themselves do. train_rows, validation_rows: the gold
    rows that it was tuned on, and those that chose the epoch. loss_*: on the latter, in nats a target token. score_*: the
    task's main metric of greedy answers to at most 64 validation rows, as {"value", "ci95", "n"}.
    """

    file: str | None
    train_rows: int
    validation_rows: int
    best_epoch: float
    loss_before: float
    loss_after: float
    metric: str
    score_before: Mapping[str, Any]
    score_after: Mapping[str, Any]

    def write(self, folder: RunFolder) -> None:
        write_json(folder.correction / RESULT, asdict(self))


def read_correction(folder: RunFolder) -> Correction | None:
    """What the correction in a run folder came to; None where there was none, or it is not done.

    Raises:
        CorruptFileError: its record is not what was written.
    """
    path = folder.correction / RESULT
    if not path.is_file():
        return None
    try:
        return Correction(**orjson.loads(path.read_bytes()))
    except (orjson.JSONDecodeError, TypeError) as error:
        raise CorruptFileError(
            "a file of the run is not what was written", where=str(path), found=error,
            hint="delete it: the teacher is corrected again",
        ) from error


def teachers_of(job: JobSpec, folder: RunFolder) -> tuple[ResolvedModel, ...]:
    """The teachers of a job as they answer in its run.

    Raises:
        InputError: the teacher is to be corrected, and was not yet.
        ModelNotFoundError: a teacher is not where the job says.
    """
    return resolve_teachers(job) if job.correction is None else (first_teacher(job, folder),)


def first_teacher(job: JobSpec, folder: RunFolder | None) -> ResolvedModel:
    """The teacher that the student is compared with; folder: that of the run, where there is one.

    Raises:
        As `teachers_of`.
    """
    teacher = resolve(job.teachers[0])
    if job.correction is None or folder is None:
        return teacher
    correction = read_correction(folder)
    if correction is None:
        raise InputError("the teacher is not corrected yet", where=str(folder.teacher), hint=f"potstill run {folder.root}")
    return in_its_place(teacher, folder.teacher / (correction.file or ""))


def weights_of(job: JobSpec, folder: RunFolder | None) -> ResolvedModel | None:
    """The first teacher as unquantised weights where they are at hand, else as it is; None for an endpoint.

    Raises:
        As `teachers_of`.
    """
    teacher = first_teacher(job, folder)
    if job.correction is None or folder is None:
        return None if teacher.kind == "endpoint" else teacher
    return in_its_place(resolve(job.teachers[0]), folder.teacher)


def in_its_place(teacher: ResolvedModel, path: Path) -> ResolvedModel:
    """The corrected teacher: the weights or the file at this path, under a name that says so."""
    found = resolve(ModelSpec(path=str(path)))
    return replace(
        teacher, name=f"{teacher.name} (corrected)", kind=found.kind, model=None, path=found.path,
        context_window=teacher.context_window or found.context_window,
    )


def check_correctable(teacher: ResolvedModel) -> ResolvedModel:
    """The teacher, if its weights can be tuned here.

    Raises:
        InputError: they cannot.
    """
    if teacher.served or teacher.batch:
        raise InputError(
            "this teacher cannot be corrected: its weights are not at hand", where="key 'teacher.correct' of the job file",
            found=f"{teacher.name}, a model that answers from another process",
            expected="a hub id, a folder or a .gguf file, without 'engine'",
        )
    if teacher.trust_remote_code:
        raise InputError(
            "this teacher cannot be corrected: it comes with code of its own", where="key 'teacher.correct' of the job file",
            found=f"{teacher.name}, with trust_remote_code", expected="a model that transformers knows",
        )
    return teacher
