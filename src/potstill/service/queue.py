"""The queue of a machine: jobs start in the order in which they were created, so many at once as the settings allow.

Every queued job has a process of its own that waits for its turn; so a job runs with the environment of whoever created it, API
keys included, and nothing has to be written down. There is no server: who decides (to queue a job, or to start one) holds the
queue's lock, a lock of the operating system. A job whose process was killed while it waited, by a reboot say, gets another one
from the next process that looks at the queue.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from potstill.errors import InputError, JobFailedError
from potstill.pipeline.folder import RunFolder, write_text
from potstill.service.records import new_job, now, refresh
from potstill.service.settings import Settings
from potstill.service.tables import JobRecord
from potstill.spec import JobSpec, dump_job

# A process needs about a second to start; only after that is a queued job without one taken for orphaned.
START_GRACE = timedelta(seconds=20)
MOST_STARTS = 3
_children: list[subprocess.Popen[bytes]] = []


def queue_lock(settings: Settings) -> FileLock:
    """Held by whoever decides about this machine's queue."""
    settings.home.mkdir(parents=True, exist_ok=True)
    return FileLock(settings.home / f"queue-{settings.host}.lock")


def enqueue(session: Session, settings: Settings, spec: JobSpec, labels: Mapping[str, Any]) -> JobRecord:
    """Put a job at the queue's end, or change one that is still queued; call with the queue's lock held.

    A job that has ended under this name goes on in its folder, with the new settings.

    Raises:
        InputError: a job of this name is running, or belongs to another machine.
    """
    record = session.scalar(select(JobRecord).where(JobRecord.name == spec.name))
    if record is None:
        record = new_job(spec.name, settings.runs / spec.name, settings.host, spec, labels)
        session.add(record)
    else:
        _check_free(record, settings)
        record.spec, record.labels = spec.model_dump(mode="json"), dict(labels)
    folder = RunFolder(Path(record.run_folder))
    folder.root.mkdir(parents=True, exist_ok=True)
    write_text(folder.job, dump_job(spec))
    if record.ticket is None or record.status != "Queued":
        record.ticket = 1 + (session.scalar(select(func.max(JobRecord.ticket)).where(JobRecord.host == settings.host)) or 0)
        record.status, record.queued_at, record.starts = "Queued", now(), 0
        record.error = record.started_at = record.finished_at = record.stage = None
        record.cancel_requested = record.archived = False
    session.flush()
    return record


def _check_free(record: JobRecord, settings: Settings) -> None:
    refresh(record, settings.host)
    if record.host != settings.host:
        raise InputError("a job of this name belongs to another machine", where=f"job '{record.name}'", found=record.host,
                         expected=settings.host, hint="choose another name")
    if record.status == "Running":
        raise InputError("a job of this name is running", where=record.run_folder,
                         hint=f"potstill jobs cancel {record.name}, or choose another name")


def start_process(settings: Settings, record: JobRecord) -> None:
    """Start the process that waits for a job's turn and runs it; it outlives this one."""
    folder = Path(record.run_folder)
    record.starts += 1
    record.queued_at = now()
    environment = {**os.environ, **settings.environment()}
    if catalog := os.environ.get("POTSTILL_CATALOG"):
        environment["POTSTILL_CATALOG"] = str(Path(catalog).expanduser().resolve())
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "potstill.service.worker", record.name],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, **_detached(),
        )
    _children[:] = [child for child in _children if child.poll() is None]
    _children.append(process)  # else it would stay a zombie until this process ends


def _detached() -> dict[str, Any]:
    """A session of its own: no Ctrl-C or hang-up of this terminal reaches it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    return {"start_new_session": True}


def ahead(session: Session, record: JobRecord) -> list[JobRecord]:
    """The queued jobs of the same machine that come before this one."""
    earlier = select(JobRecord).where(
        JobRecord.host == record.host, JobRecord.status == "Queued", JobRecord.ticket < record.ticket
    )
    return list(session.scalars(earlier.order_by(JobRecord.ticket)))


def is_turn(session: Session, settings: Settings, record: JobRecord) -> bool:
    """Whether a queued job may start now; call with the queue's lock held."""
    if ahead(session, record):
        return False
    running = session.scalars(select(JobRecord).where(JobRecord.host == settings.host, JobRecord.status == "Running"))
    alive = 0
    for other in running:
        refresh(other, settings.host)
        alive += other.status == "Running"
    return alive < settings.max_parallel_jobs


def orphans(session: Session, settings: Settings) -> list[JobRecord]:
    """The queued jobs of this machine that have lost their process."""
    queued = select(JobRecord).where(
        JobRecord.host == settings.host, JobRecord.status == "Queued", JobRecord.queued_at < now() - START_GRACE
    )
    records = session.scalars(queued.order_by(JobRecord.ticket))
    return [record for record in records if not RunFolder(Path(record.run_folder)).is_held()]


def revive(session: Session, settings: Settings) -> None:
    """Give every queued job of this machine that has lost its process another one; call with the queue's lock held."""
    for record in orphans(session, settings):
        folder = RunFolder(Path(record.run_folder))
        if record.starts >= MOST_STARTS or not folder.job.is_file():
            record.status, record.finished_at = "Failed", now()
            record.error = JobFailedError(
                "the process of the job ends before it begins", where=str(folder.root / "worker.log"),
                hint=f"potstill run {folder.root} shows why",
            ).as_json()
        else:
            start_process(settings, record)
