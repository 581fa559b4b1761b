"""The run folder: where each file of a run lies, and the lock that says whether somebody is at work in it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from potstill.errors import MachineError, RunLockedError

LOCK_PATIENCE_S = 1.0  # longer than a look at the lock takes, which holds it for an instant


class RunFolder:
    """Paths of one run, all relative to its root, so that the folder can be moved or copied."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.job = root / "job.yaml"
        self.events = root / "events.jsonl"
        self.journal = root / "journal"
        self.rows = root / "rows"
        self.teacher = root / "teacher"
        self.correction = root / "teacher" / "correction"  # apart: files beside weights go with them when they are trained on
        self.generated = root / "generated"
        self.curated = root / "curated"
        self.signals = root / "signals"
        self.student = root / "student"
        self.initial_student = root / "initial" / "student"
        self.exports = root / "exports"
        self.evaluation = root / "evaluation"
        self.report_json = root / "report.json"
        self.report_html = root / "report.html"
        self.model_card = root / "MODEL_CARD.md"
        self.dataset_card = root / "DATASET_CARD.md"

    def relative(self, path: Path) -> str:
        """A path of this run as it is written into events: with slashes, relative to the root."""
        return path.relative_to(self.root).as_posix()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. A killed process frees it at once, because the operating system does.

        Who holds it already may hold it once more, in the same thread.

        Raises:
            RunLockedError: another process holds it.
            MachineError: the folder cannot be made or written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not os.access(self.root, os.W_OK):
                raise PermissionError(13, "not writable")
            lock = self._lock()
            lock.acquire(timeout=LOCK_PATIENCE_S)
        except Timeout:
            raise RunLockedError(
                "another process is working on this run", where=str(self.root), hint="wait for it, or stop it first"
            ) from None
        except OSError as error:
            raise MachineError("the run folder cannot be written", where=str(self.root), found=error.strerror) from error
        try:
            yield
        finally:
            lock.release()

    def is_held(self, looks: int = 3) -> bool:
        """Whether a process is at work here.

        To look is to hold the lock for an instant, so one look may see another's: only a lock that stays is a process.
        """
        if not self.root.is_dir() or not os.access(self.root, os.W_OK):
            return False
        for look in range(looks):
            time.sleep(0.01 * look)
            lock = FileLock(self.root / ".lock")
            try:
                with lock.acquire(timeout=0):
                    return False
            except Timeout:
                continue
        return True

    def _lock(self) -> FileLock:
        return FileLock(self.root / ".lock", is_singleton=True)


def claim(folder: Path, fingerprint: str) -> None:
    """Make a folder for what has this fingerprint; what was begun in it for this one is kept, for another one removed."""
    marker = folder / "fingerprint"
    if not marker.is_file() or marker.read_bytes() != fingerprint.encode():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        marker.write_text(fingerprint)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: to a temporary name, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_text(path, orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
