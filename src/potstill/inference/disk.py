"""How the journal reaches the disk: the lock that keeps others out, and syncs in groups that nobody waits for."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from filelock import FileLock, Timeout

from potstill.errors import MachineError, RunLockedError

SYNC_SECONDS = 0.05
SYNC_RECORDS = 64


class Syncer:
    """Syncs a file in a thread of its own, in groups, so that nobody waits for the disk."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._pending = 0
        self._closing = False
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    def wrote(self) -> None:
        """Count one more record.

        Raises:
            MachineError: an earlier sync failed.
        """
        with self._changed:
            self._pending += 1
            if self._pending in (1, SYNC_RECORDS):
                self._changed.notify()
            self._check()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise MachineError("the journal cannot be synced to the disk", found=self._error.strerror) from self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                self._changed.wait_for(lambda: self._pending >= SYNC_RECORDS or self._closing, SYNC_SECONDS)
                closing, self._pending = self._closing, 0
            try:
                os.fsync(self._file)
            except OSError as error:
                self._error = error
                return
            if closing:
                return


def take_lock(folder: Path, called: str = "the journal") -> FileLock:
    """Keep others out of a folder of files that are added to; made where it does not exist. called: what it holds, in errors.

    Raises:
        RunLockedError: another process has it open.
        MachineError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise RunLockedError(
            f"another process is working with {called}",
            where=str(folder),
            hint="wait until it ends, or end it, then run again",
        ) from error
    except OSError as error:
        raise unwritable(folder, error, called) from error
    return lock


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk; Windows does so by itself, and opens no folders."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError, called: str = "the journal") -> MachineError:
    """What is said when the disk is full, or the folder not ours."""
    return MachineError(
        f"{called} cannot be written",
        where=str(path),
        found=error.strerror,
        hint="free space or mend the folder, then run again",
    )
