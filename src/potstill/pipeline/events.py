"""The events of a run: one JSON object a line, only ever appended. They are the truth about the run.

Kinds: `job` (the run was started or goes on), `started`, `progress`, `metric`, `message`, `finished` and `failed` of a stage;
at the end `completed` (all stages that were wanted are done), `failed` or `canceled`. A `finished` event of a
stage carries its fingerprint and its output files with their digests; a stage whose last `finished` event has today's
fingerprint, and whose outputs are as they were, is not done again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson


class EventLog:
    """Appends events; each is handed to the operating system as one write, so a kill leaves at most one torn last line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, kind: str, **values: Any) -> None:
        event = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": kind, **values}
        line = orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
        self._end_torn_line()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            if kind in ("finished", "failed", "completed", "canceled"):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _end_torn_line(self) -> None:
        """After a kill in the middle of a line, the next event starts on a line of its own."""
        if not self._path.exists() or self._path.stat().st_size == 0:
            return
        with self._path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")

    def read(self) -> Iterator[dict[str, Any]]:
        """All whole events, oldest first; a torn line is passed over."""
        if not self._path.exists():
            return
        with self._path.open("rb") as lines:
            for line in lines:
                try:
                    event = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                if isinstance(event, dict):
                    yield event

    def last_finished(self, stage: str) -> Mapping[str, Any] | None:
        """The newest `finished` event of a stage."""
        return next(
            (e for e in reversed(list(self.read())) if e.get("event") == "finished" and e.get("stage") == stage), None
        )
