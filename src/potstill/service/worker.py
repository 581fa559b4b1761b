"""The process of a queued job: `python -m potstill.service.worker NAME`.

It holds the run folder from its start on, waits until the job's turn comes, and runs it. What it prints goes to worker.log in
the run folder; what became of the job stands in the run's events and in the database.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from potstill.errors import PotstillError, RunLockedError
from potstill.pipeline.events import EventLog
from potstill.pipeline.folder import RunFolder
from potstill.service.database import Database
from potstill.service.queue import ahead, is_turn, queue_lock, revive
from potstill.service.records import find_job, now
from potstill.service.settings import Settings, load_settings
from potstill.spec import load_job

LOOK_INTERVAL_S = 0.25
LONGEST_INTERVAL_S = 3.0


def main(arguments: Sequence[str]) -> int:
    """Run the job that the only argument names, once its turn has come; returns the exit code."""
    settings, name = load_settings(), arguments[0]
    try:
        database = Database(settings)
        with database.session() as session:
            folder = RunFolder(Path(find_job(session, name).run_folder))
        with folder.locked():
            if not wait_for_turn(database, settings, name):
                return 0
            database.close()
            _run(settings, name, folder)
    except RunLockedError:
        return 0  # another process has this job already
    except PotstillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def wait_for_turn(database: Database, settings: Settings, name: str) -> bool:
    """Whether the job may start: returns when it may, or when it was cancelled while it waited."""
    while True:
        with queue_lock(settings), database.session() as session:
            record = find_job(session, name)
            if record.status != "Queued":
                return False
            if is_turn(session, settings, record):
                record.status, record.started_at, record.heartbeat_at, record.pid = "Running", now(), now(), os.getpid()
                return True
            revive(session, settings)
            before = len(ahead(session, record))
        time.sleep(min(LOOK_INTERVAL_S * (1 + before), LONGEST_INTERVAL_S))


def _run(settings: Settings, name: str, folder: RunFolder) -> None:
    """Run the job as it was queued; a job that cannot even begin says so in its events."""
    from potstill.pipeline.check import preflight
    from potstill.pipeline.lines import Lines
    from potstill.pipeline.run import run_job
    from potstill.service.recorded import recording

    spec = load_job(folder.job)
    progress = Lines()
    with recording(settings, spec, folder.root, progress) as canceled:
        try:
            preflight(spec, folder.root)
        except PotstillError as error:
            EventLog(folder.events).append("job", name=name, until=None)
            EventLog(folder.events).append("failed", **error.as_json())
            raise
        run_job(spec, folder.root, progress, canceled=canceled)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
