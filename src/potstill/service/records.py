"""Reading and writing the rows of jobs, and keeping them true to their run folders."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from potstill.errors import InputError
from potstill.pipeline.folder import RunFolder
from potstill.service.status import ENDED, RunState, read_state
from potstill.service.tables import JobRecord
from potstill.spec import JobSpec


def now() -> datetime:
    return datetime.now(UTC)


def find_job(session: Session, name: str) -> JobRecord:
    """The row of a job.

    Raises:
        InputError: there is none; the error lists names that are near.
    """
    record = session.scalar(select(JobRecord).where(JobRecord.name == name))
    if record is None:
        names = list(session.scalars(select(JobRecord.name)))
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        raise InputError(
            f"no job is called '{name}'", expected="a name that potstill jobs list shows",
            hint="did you mean " + ", ".join(near) + "?" if near else "potstill jobs import DIR records the runs in a folder",
        )
    return record


def new_job(name: str, folder: Path, host: str, spec: JobSpec, labels: Mapping[str, Any]) -> JobRecord:
    """A row for a job that has not begun."""
    return JobRecord(
        name=name, run_folder=str(folder), host=host, status="Queued", spec=spec.model_dump(mode="json"), labels=dict(labels),
        created_at=now(), events_bytes=0, starts=0, cancel_requested=False, archived=False,
    )


def adopt(session: Session, spec: JobSpec, folder: Path, host: str) -> JobRecord:
    """The row of the run in a folder, made where there is none.

    A name that another run has already gets a number, unless that run's folder is gone: then this is the folder, moved.
    """
    record = session.scalar(select(JobRecord).where(JobRecord.run_folder == str(folder), JobRecord.host == host))
    if record is not None:
        record.spec = spec.model_dump(mode="json")
        return record
    name, number = spec.name, 1
    while (record := session.scalar(select(JobRecord).where(JobRecord.name == name))) is not None:
        if record.host == host and not RunFolder(Path(record.run_folder)).events.exists():
            record.run_folder, record.spec, record.events_bytes = str(folder), spec.model_dump(mode="json"), 0
            return record
        number += 1
        name = f"{spec.name}-{number}"
    record = new_job(name, folder, host, spec, {})
    session.add(record)
    session.flush()
    return record


def refresh(record: JobRecord, host: str) -> RunState | None:
    """Bring a row up to what its run folder says; the state read there, None where the row is up to date.

    Rows of other machines are left alone: their locks cannot be seen from here. So are queued ones, whose run has yet to begin.
    """
    if record.host != host or record.status == "Queued":
        return None
    folder = RunFolder(Path(record.run_folder))
    size = folder.events.stat().st_size if folder.events.is_file() else 0
    if record.status in ENDED and record.events_bytes == size and not folder.is_held(looks=1):
        return None
    state = read_state(folder)
    settle(record, state, size)
    return state


def settle(record: JobRecord, state: RunState, events_bytes: int) -> None:
    """Write a state into a row."""
    record.status, record.stage, record.events_bytes = state.status, state.stage, events_bytes
    record.error = dict(state.error) if state.error is not None else None
    record.started_at, record.finished_at = state.started_at, state.finished_at
    if state.status in ENDED:
        record.cancel_requested = False
