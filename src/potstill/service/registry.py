"""The models that jobs leave: `<student>-distilled`, `<student>-baseline`, and the teacher under its own name.

What a name leads to follows from the run folder of its job, so that a folder that was moved keeps its models.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from potstill.catalog import ResolvedModel, resolve
from potstill.errors import InputError, PotstillError
from potstill.pipeline.corrected import first_teacher, weights_of
from potstill.pipeline.folder import RunFolder
from potstill.service.records import now
from potstill.service.tables import JobRecord, ModelRecord
from potstill.spec import JobSpec, ModelSpec, StudentSpec, load_job

Role = Literal["teacher", "baseline", "distilled"]
ROLES: tuple[Role, ...] = ("teacher", "baseline", "distilled")


@dataclass(frozen=True, slots=True)
class Located:
    """A model of a job, ready to be opened. weights: the unquantised ones behind it, None where they are not at hand."""

    name: str
    role: Role
    model: ResolvedModel
    weights: ResolvedModel | None
    job: JobSpec
    run: RunFolder | None


def model_name(job: JobSpec, role: Role) -> str:
    """What a job's model is called: after what the user called the teacher or the student."""
    return _own_name(job.teachers[0]) if role == "teacher" else f"{_own_name(job.student)}-{role}"


def _own_name(spec: ModelSpec) -> str:
    """What the user called a model, without the folders before it."""
    return Path(spec.path).name.removesuffix(".gguf") if spec.path is not None else str(spec.model)


def register_models(session: Session, job: JobRecord) -> None:
    """Record what a finished run has left; what the same job left before is replaced in place, its versions kept."""
    folder = RunFolder(Path(job.run_folder))
    spec = load_job(folder.job)
    report = orjson.loads(folder.report_json.read_bytes())
    known = {record.role: record for record in session.scalars(select(ModelRecord).where(ModelRecord.job == job.name))}
    for role in ROLES:
        name, old = model_name(spec, role), known.get(role)
        if old is not None and old.name == name:
            old.metrics, old.task = report["models"].get(role) or {}, spec.task
            continue
        if old is not None:
            session.execute(delete(ModelRecord).where(ModelRecord.number == old.number))
        newest = session.scalar(select(func.max(ModelRecord.version)).where(ModelRecord.name == name)) or 0
        session.add(ModelRecord(
            name=name, version=newest + 1, role=role, job=job.name, task=spec.task,
            metrics=report["models"].get(role) or {}, created_at=now(),
        ))
        session.flush()


def find_model(session: Session, name: str, version: int | None = None) -> ModelRecord:
    """The newest version of a model, or the one asked for.

    Raises:
        InputError: there is none; the error lists names that are near.
    """
    wanted = select(ModelRecord).where(ModelRecord.name == name)
    if version is not None:
        wanted = wanted.where(ModelRecord.version == version)
    record = session.scalar(wanted.order_by(ModelRecord.version.desc()).limit(1))
    if record is None:
        names = sorted(set(session.scalars(select(ModelRecord.name))))
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        known = f"version {version} of " if version is not None and name in names else ""
        raise InputError(
            f"there is no {known}model '{name}'", expected="a name that potstill models list shows",
            hint="did you mean " + ", ".join(near) + "?" if near else "a job that has completed leaves its models there",
        )
    return record


def locate_model(session: Session, record: ModelRecord) -> Located:
    """Where a recorded model lies.

    Raises:
        InputError: its run folder is gone, or lies on another machine.
    """
    job = session.scalar(select(JobRecord).where(JobRecord.name == record.job))
    folder = RunFolder(Path(job.run_folder)) if job is not None else None
    if folder is None or not folder.job.is_file():
        raise InputError(
            f"the run folder of the model '{record.name}' is not here", where=str(folder.root) if folder else record.job,
            hint="where it was moved: potstill jobs import DIR",
        )
    return located_in(folder, load_job(folder.job), _role(record.role), record.name)


def located_in(run: RunFolder, job: JobSpec, role: Role, name: str) -> Located:
    """A model of the run in a folder: the very file that a user would deploy where there is one."""
    if role == "teacher":
        return Located(name, role, first_teacher(job, run), weights_of(job, run), job, run)
    student = run.student if role == "distilled" else _initial(run, job.student)
    weights = ResolvedModel(name, "folder", path=student) if student is not None else None
    stem = "student" if role == "distilled" else "baseline"
    exports = sorted(run.exports.glob(f"{stem}.*.gguf"), key=lambda path: _place(job, path))
    if exports:
        return Located(name, role, ResolvedModel(name, "gguf", path=exports[0]), weights, job, run)
    if weights is None or not (Path(str(weights.path)) / "config.json").is_file():
        raise InputError(f"the weights of the model '{name}' are not there", where=str(student or run.student),
                         hint=f"potstill run {run.root} makes them")
    return Located(name, role, weights, weights, job, run)


def _initial(run: RunFolder, student: StudentSpec) -> Path | None:
    """The untouched student: built in the run folder, or the user's own folder where nothing had to be built."""
    if (run.initial_student / "config.json").is_file():
        return run.initial_student
    try:
        model = resolve(student)
    except PotstillError:
        return None
    return model.path if model.kind == "folder" else None


def _place(job: JobSpec, path: Path) -> int:
    """The place of an exported file among the job's formats: the first one is what the report measured."""
    suffixes = [form.partition(":")[2].upper() for form in job.export.formats]
    suffix = path.name.split(".")[-2]
    return suffixes.index(suffix) if suffix in suffixes else len(suffixes)


def _role(text: str) -> Role:
    return next(role for role in ROLES if role == text)


def describe_model(record: ModelRecord) -> Mapping[str, Any]:
    """A model's row for a program."""
    return {
        "name": record.name, "version": record.version, "role": record.role, "job": record.job, "task": record.task,
        "created_at": record.created_at.isoformat(), "metrics": record.metrics,
    }
