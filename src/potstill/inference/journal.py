"""The journal: every attempt at a model, as it came back, before anything parses it.

What goes in: an intent before a request is sent, an outcome (the raw reply) or a failure after. What comes out: the last good
raw reply of a request's key, in this process or any later one. What it costs: one write to the operating system a record, so a
killed process loses nothing that it was given; the sync to the disk is grouped (50 ms or 64 records), so a machine that loses
power loses that much at most. Bodies stay on disk; memory holds one small entry a key.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from potstill.inference.disk import Syncer, sync_folder, take_lock, unwritable
from potstill.inference.key_index import KeyIndex, place_of, split_place
from potstill.inference.protocol import RawReply
from potstill.inference.segments import MAGIC, encode, find_segments, read_record, scan, segment_path
from potstill.inference.spending import Spending

# The last two exist on POSIX and on Windows respectively.
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class JournalStats:
    """How many records of each kind there are. unresolved: intents with neither an outcome nor a failure (the process died)."""

    intents: int
    outcomes: int
    failures: int

    @property
    def unresolved(self) -> int:
        return self.intents - self.outcomes - self.failures


class Journal:
    """A folder of segment files with one writer. Threads may share it; a second process is kept out.

    `spending` is the sum of what its records cost.

    Args:
        folder: Made where it does not exist.
        segment_bytes: A segment that has grown past this is followed by a new one.

    Raises:
        RunLockedError: another process has it open.
        CorruptFileError: a record is broken though more follows.
        MachineError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = 64 * 2**20) -> None:
        self._folder, self._segment_bytes = folder, segment_bytes
        self.spending = Spending()
        self._index = KeyIndex()
        self._counts: Counter[str] = Counter()
        self._readers: dict[int, BinaryIO] = {}
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        self._lock = take_lock(folder)
        try:
            self._segment, self._size = self._load()
            self._file = self._open_segment(self._segment, self._size)
        except BaseException:
            self._lock.release()
            raise
        self._syncer = Syncer(self._file)

    def append_intent(self, key: str, meta: Mapping[str, Any], *, price: Mapping[str, Any] | None = None) -> None:
        """Note that a request is about to be sent; `price` is the worst it may cost.

        Raises:
            MachineError: it cannot be written (all `append_...` methods).
        """
        self._append({"kind": "intent", "key": key, "at": time.time(), "meta": dict(meta), "price": dict(price or {})})

    def append_outcome(self, key: str, raw: RawReply, *, price: Mapping[str, Any] | None = None) -> None:
        """Keep what came back, byte for byte, whatever its status; `price` is what it cost."""
        note = {
            "kind": "outcome",
            "key": key,
            "at": time.time(),
            "status": raw.status,
            "latency_s": raw.latency_s,
            "retry_after_s": raw.retry_after_s,
            "price": dict(price or {}),
        }
        self._append(note, raw.body)

    def append_failure(self, key: str, why: str, *, price: Mapping[str, Any] | None = None) -> None:
        """Note that nothing, or not all of it, came back; `price` where it is known what that cost."""
        self._append({"kind": "failure", "key": key, "at": time.time(), "why": why, "price": dict(price or {})})

    def reply(self, key: str) -> RawReply | None:
        """The last reply with status 200 to this request, None where there is none.

        Raises:
            CorruptFileError: it is no longer what was written.
        """
        place = self._index.get(key)
        if place is None:
            return None
        segment, offset = split_place(place)
        path = segment_path(self._folder, segment)
        with self._read_lock:
            if segment not in self._readers:
                self._readers[segment] = path.open("rb")
            record = read_record(self._readers[segment], offset, path)
        if record.note["key"] != key:  # see KeyIndex
            return None
        return RawReply(record.note["status"], record.body, record.note["latency_s"], record.note["retry_after_s"])

    def stats(self) -> JournalStats:
        return JournalStats(self._counts["intent"], self._counts["outcome"], self._counts["failure"])

    def close(self) -> None:
        """Sync to the disk and let others in."""
        try:
            self._syncer.close()
        finally:
            os.close(self._file)
            for reader in self._readers.values():
                reader.close()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exit_info: object) -> None:
        self.close()

    def _load(self) -> tuple[int, int]:
        """Read all segments into the index; the last one's number, and the bytes of it that are whole."""
        segments, left_behind = find_segments(self._folder)
        for segment in left_behind:
            segment_path(self._folder, segment).unlink()
        end = 0
        for segment in segments:
            path = segment_path(self._folder, segment)
            end = min(path.stat().st_size, len(MAGIC))
            for record in scan(path, may_be_torn=segment == segments[-1]):
                self._note(record.note, segment, record.offset)
                end = record.end
        return (segments[-1] if segments else 1), (0 if end < len(MAGIC) else end)

    def _note(self, note: dict[str, Any], segment: int, offset: int) -> None:
        kind = note["kind"]
        self._counts[kind] += 1
        if kind == "taken":  # a compaction took these out
            self._counts.update(note["records"])
        self.spending.note(note)
        if kind == "outcome" and note["status"] == 200:
            self._index.put(note["key"], place_of(segment, offset))

    def _open_segment(self, segment: int, size: int) -> int:
        """Open for appending; what lies past `size` is torn and cut off."""
        path = segment_path(self._folder, segment)
        try:
            file = os.open(path, _APPEND, 0o644)
            os.ftruncate(file, size)
            if size == 0:
                os.write(file, MAGIC)
                self._size = len(MAGIC)
            os.fsync(file)
            sync_folder(self._folder)
        except OSError as error:
            raise unwritable(path, error) from error
        return file

    def _append(self, note: dict[str, Any], body: bytes = b"") -> None:
        record = encode(note, body)
        with self._write_lock:
            if self._size >= self._segment_bytes:
                self._start_segment()
            try:
                _write_all(self._file, record)
            except OSError as error:
                os.ftruncate(self._file, self._size)
                raise unwritable(segment_path(self._folder, self._segment), error) from error
            self._note(note, self._segment, self._size)
            self._size += len(record)
        self._syncer.wrote()

    def _start_segment(self) -> None:
        """The old segment is on the disk before a new one exists, so only the last can ever be torn."""
        self._syncer.close()
        os.close(self._file)
        self._segment += 1
        self._file = self._open_segment(self._segment, 0)
        self._syncer = Syncer(self._file)


def _write_all(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, data[written:])
