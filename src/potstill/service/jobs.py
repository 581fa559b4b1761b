"""Jobs as a caller sees them: create, look at, follow, cancel, archive. The names are those of the Azure ML SDK.

Every look is a true one: a job whose process was killed is Failed at the next `get`, whoever asks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from potstill.errors import InputError, JobFailedError
from potstill.pipeline.check import preflight
from potstill.pipeline.events import EventLog
from potstill.pipeline.folder import RunFolder
from potstill.service.database import Database
from potstill.service.log import format_error, format_event, new_events
from potstill.service.processes import end_process
from potstill.service.queue import ahead, enqueue, orphans, queue_lock, revive, start_process
from potstill.service.records import adopt, find_job, now, refresh
from potstill.service.registry import register_models
from potstill.service.settings import Settings
from potstill.service.status import ENDED, ENDS, RunState, Status
from potstill.service.tables import JobRecord
from potstill.spec import JobSpec, load_job

_LOOK_INTERVAL_S = 0.3


class Description(Protocol):
    """What a job can be created from: `potstill.entities.DistillationJob`."""

    def to_job_spec(self, folder: Path) -> JobSpec: ...

    @property
    def labels(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stood when it was looked at.

    status: Queued, Running, Completed, Failed or Canceled. stage: the one at work, or where the run stopped. progress: of the
    step at work: {"step", "done", "total"}. place: how many jobs are before it in the queue, None where it does not wait.
    error: why it failed: {"error", "what", "where", "found", "expected", "hint"}. labels: display_name, description, tags and
    experiment_name, where they were given. heartbeat_at: when its process last told that it lives, for display.
    """

    name: str
    status: Status
    run_folder: Path
    host: str
    task: str
    teacher: str
    student: str
    stage: str | None
    progress: Mapping[str, Any] | None
    place: int | None
    error: Mapping[str, Any] | None
    labels: Mapping[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None
    archived: bool

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def duration_s(self) -> float | None:
        """Seconds from its (last) start to its end, or until now."""
        return None if self.started_at is None else ((self.finished_at or now()) - self.started_at).total_seconds()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            key: value.isoformat() if isinstance(value, datetime) else str(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
        }


Jobs = list[Job]
Lines = list[str]


class JobOperations:
    """`ml_client.jobs`."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings

    def create_or_update(self, job: Description | JobSpec) -> Job:
        """Queue a job and return at once; it runs in a process of its own, which outlives this one.

        A job of the same name that has ended goes on where its settings and data still agree; one that is still queued takes
        the new settings.

        Raises:
            InputError: something in the job is wrong, or a job of this name is running.
            PotstillError: the database or the machine is at fault.
        """
        spec, labels = (job, {}) if isinstance(job, JobSpec) else (job.to_job_spec(Path.cwd()), job.labels)
        preflight(spec, self._settings.runs / spec.name)
        with queue_lock(self._settings):
            with self._database.session() as session:
                record = enqueue(session, self._settings, spec, labels)
                start = record.starts == 0
            # Committed first: a process that looks for its job has to find it.
            if start:
                with self._database.session() as session:
                    start_process(self._settings, find_job(session, spec.name))
        return self.get(spec.name)

    def get(self, name: str) -> Job:
        """A job as it stands now.

        Raises:
            InputError: there is no job of this name.
        """
        self._wake()
        with self._database.session() as session:
            record = find_job(session, name)
            return self._job(session, record, refresh(record, self._settings.host))

    def list(self, *, archived: bool = False) -> Jobs:
        """All jobs, in the order in which they were created; with `archived` those that were archived too."""
        self._wake()
        with self._database.session() as session:
            records = session.scalars(select(JobRecord).order_by(JobRecord.number))
            return [
                self._job(session, record, refresh(record, self._settings.host))
                for record in records if archived or not record.archived
            ]

    def stream(self, name: str, file: IO[str] | None = None) -> None:
        """Print the job's log as it grows, until the job ends.

        Args:
            file: Where to print; stdout without it.

        Raises:
            JobFailedError: the job failed; the message says why. A cancelled job ends the log and is no error.
            InputError: there is no job of this name.
        """
        out, seen, place = file or sys.stdout, self._start_of_last_run(name), -1
        while True:
            job = self.get(name)
            if job.place is not None and job.place != place:
                place = job.place
                _say(out, f"queued, {place} before it" if place else "queued, next to start")
            for event, behind in new_events(RunFolder(job.run_folder).events, seen):
                _say(out, format_event(event))
                seen = behind
            if job.ended:
                break
            time.sleep(_LOOK_INTERVAL_S)
        if job.status == "Failed":
            raise JobFailedError(f"the job '{name}' failed: {format_error(job.error or {})}", where=str(job.run_folder),
                                 hint=(job.error or {}).get("hint"))

    def log(self, name: str) -> Lines:
        """The lines of the log of a job's last run, so far.

        Raises:
            InputError: there is no job of this name.
        """
        events = new_events(RunFolder(self.get(name).run_folder).events, self._start_of_last_run(name))
        return [line for event, _ in events if (line := format_event(event)) is not None]

    def _start_of_last_run(self, name: str) -> int:
        """Where in events.jsonl the newest start of a job stands; for one that has yet to begin (again), where it will."""
        job, start, end, over = self.get(name), 0, 0, False
        for event, behind in new_events(RunFolder(job.run_folder).events, 0):
            over = event["event"] in ENDS
            start, end = (end if event["event"] == "job" else start), behind
        return end if over and not job.ended else start

    def cancel(self, name: str, *, patience_s: float = 120.0) -> Job:
        """Stop a job at a point from which it can go on: `create_or_update` again, or `potstill run` on its folder.

        A training writes a checkpoint first. A process that has not stopped after `patience_s` seconds is ended; it too goes on
        from its last checkpoint, and no reply that it received is lost.

        Raises:
            InputError: there is no job of this name, or it has ended already.
        """
        with queue_lock(self._settings), self._database.session() as session:
            record = find_job(session, name)
            refresh(record, self._settings.host)
            if record.status in ENDED:
                raise InputError(f"the job '{name}' has ended already", where=record.run_folder, found=record.status)
            if record.status == "Queued":
                record.status, record.finished_at = "Canceled", now()
                return self._job(session, record, None)
            record.cancel_requested = True
        deadline = time.monotonic() + patience_s
        while not (job := self.get(name)).ended and time.monotonic() < deadline:
            time.sleep(_LOOK_INTERVAL_S)
        return job if job.ended else self._end(name)

    def _end(self, name: str) -> Job:
        """End the process of a job that does not stop by itself."""
        with self._database.session() as session:
            record = find_job(session, name)
            folder, pid, here = RunFolder(Path(record.run_folder)), record.pid, record.host == self._settings.host
        if here and pid is not None and end_process(pid):
            with folder.locked():
                EventLog(folder.events).append("canceled")
        return self.get(name)

    def archive(self, name: str) -> Job:
        """Leave a job out of `list`; its run folder and its models stay.

        Raises:
            InputError: there is no job of this name, or it has not ended.
        """
        return self._set_archived(name, True)

    def restore(self, name: str) -> Job:
        """Take an archived job back into `list`.

        Raises:
            InputError: there is no job of this name.
        """
        return self._set_archived(name, False)

    def import_runs(self, folder: Path) -> Jobs:
        """Record every run folder in and below a folder: after a move, from another machine, or for a new database.

        Raises:
            InputError: the folder does not exist, or holds no run.
        """
        if not folder.is_dir():
            raise InputError("there is no such folder", where=str(folder), expected="a run folder, or a folder of them")
        found = sorted(path.parent for path in folder.resolve().rglob("events.jsonl") if RunFolder(path.parent).job.is_file())
        if not found:
            raise InputError("no run is in this folder", where=str(folder), expected="folders with job.yaml and events.jsonl")
        return [self._import(root) for root in found]

    def _import(self, root: Path) -> Job:
        with self._database.session() as session:
            record = adopt(session, load_job(RunFolder(root).job), root, self._settings.host)
            if record.status == "Queued" and record.ticket is None:  # just made, and its run has begun long ago
                record.status = "Running"
            state = refresh(record, self._settings.host)
            if record.status == "Completed" and RunFolder(root).report_json.is_file():
                register_models(session, record)
            return self._job(session, record, state)

    def _set_archived(self, name: str, archived: bool) -> Job:
        with self._database.session() as session:
            record = find_job(session, name)
            state = refresh(record, self._settings.host)
            if archived and record.status not in ENDED:
                raise InputError(f"the job '{name}' has not ended", where=record.run_folder, found=record.status,
                                 hint=f"potstill jobs cancel {name}")
            record.archived = archived
            return self._job(session, record, state)

    def _wake(self) -> None:
        """Give queued jobs that lost their process another one."""
        with self._database.session() as session:
            lost = orphans(session, self._settings)
        if lost:
            with queue_lock(self._settings), self._database.session() as session:
                revive(session, self._settings)

    def _job(self, session: Session, record: JobRecord, state: RunState | None) -> Job:
        spec = record.spec
        return Job(
            name=record.name, status=cast(Status, record.status), run_folder=Path(record.run_folder), host=record.host,
            task=spec["task"], teacher=_called(spec["teacher"]), student=_called(spec["student"]),
            stage=record.stage, progress=state.progress if state is not None else None,
            place=len(ahead(session, record)) if record.status == "Queued" else None, error=record.error,
            labels=record.labels, created_at=record.created_at, started_at=record.started_at,
            finished_at=record.finished_at, heartbeat_at=record.heartbeat_at, archived=record.archived,
        )


def _called(model: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    if not isinstance(model, Mapping):
        return ", ".join(map(_called, model))
    return str(model.get("name") or model["model"] or Path(str(model["path"])).name)


def _say(out: IO[str], text: str | None) -> None:
    if text is not None:
        print(text, file=out, flush=True)


