"""Run a job so that the database knows of it: its status, its heartbeat, whether it is to stop, and the models that it leaves.

The run folder holds the truth and the database is an index over it, so a database that fails while a job runs does not end it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from potstill.errors import PotstillError
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.progress import Progress
from potstill.pipeline.run import run_job
from potstill.pipeline.stage import never
from potstill.service.database import Database
from potstill.service.records import adopt, find_job, now, settle
from potstill.service.registry import register_models
from potstill.service.settings import Settings
from potstill.service.status import read_state
from potstill.spec import JobSpec

LOOK_INTERVAL_S = 1.0
LOOKS_A_HEARTBEAT = 10


def run_recorded(
    settings: Settings, spec: JobSpec, root: Path, progress: Progress, *, until: str | None = None
) -> RunFolder:
    """Run a job in the folder `root`, or go on with it, and keep its rows in the database true.

    Raises:
        PotstillError: see `run_job`. A database that cannot be used is told, and the job runs without it.
    """
    root = root.resolve()
    with RunFolder(root).locked(), recording(settings, spec, root, progress) as canceled:
        return run_job(spec, root, progress, until=until, canceled=canceled)


@contextmanager
def recording(settings: Settings, spec: JobSpec, root: Path, progress: Progress) -> Iterator[Callable[[], bool]]:
    """Mark the job as running, and at the end as what its run folder says; gives whether somebody cancelled it."""
    try:
        database, name = _begin(settings, spec, root)
    except PotstillError as error:
        progress.say(f"no list of jobs will show this run: {error.what} ({error.where or error.found})")
        yield never
        return
    try:
        with Watch(database, name) as watch:
            yield watch.canceled
    finally:
        try:
            _end(database, name, RunFolder(root))
        except PotstillError as error:
            progress.say(f"the list of jobs does not show how this run ended: {error.what} ({error.where or error.found})")
        database.close()


def _begin(settings: Settings, spec: JobSpec, root: Path) -> tuple[Database, str]:
    database = Database(settings)
    with database.session() as session:
        record = adopt(session, spec, root, settings.host)
        record.status, record.started_at, record.finished_at, record.error = "Running", now(), None, None
        record.heartbeat_at, record.pid, record.archived = now(), os.getpid(), False
        return database, record.name


def _end(database: Database, name: str, folder: RunFolder) -> None:
    state = read_state(folder, alive=False)
    with database.session() as session:
        record = find_job(session, name)
        settle(record, state, folder.events.stat().st_size)
        if state.status == "Completed":
            register_models(session, record)


class Watch:
    """While inside, a thread writes the job's heartbeat and looks whether somebody cancelled it."""

    def __init__(self, database: Database, name: str) -> None:
        self._database, self._name = database, name
        self._canceled, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def canceled(self) -> bool:
        return self._canceled.is_set()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exit_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        looks = 0
        while not self._over.is_set():
            try:
                with self._database.session() as session:
                    record = find_job(session, self._name)
                    if record.cancel_requested:
                        self._canceled.set()
                    if looks % LOOKS_A_HEARTBEAT == 0:
                        record.heartbeat_at = now()
            except PotstillError:
                pass  # the job does not need it, and the next look may find it again
            looks += 1
            self._over.wait(LOOK_INTERVAL_S)
