"""Segment files: the record format of the journal.

A file starts with `MAGIC`; records follow without gaps. A record is a 20-byte header (mark, length of the note, length of the
body, CRC-32 of both, CRC-32 of the header so far; little-endian), the note (JSON), and the body (any bytes, kept as they are).
A process that dies while writing leaves a torn last record: it is no error, and is cut off when the file is next opened for
writing. Anything broken before a whole record is an error, for then the file is not what was written.

A journal is a folder of such files, numbered. One that starts with `STANDS_ALONE` instead was written by a compaction: it
stands for all with lower numbers, which are no part of the journal any more, whether they are still there or not.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from potstill.errors import CorruptFileError, MachineError

MAGIC = b"PSJRNL1\n"
STANDS_ALONE = b"PSJRNA1\n"
_MARK = b"\xf5REC"
_FIELDS = struct.Struct("<4sIII")
_CHECK = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CHECK.size


@dataclass(frozen=True, slots=True)
class Record:
    """One record, where it starts in its file, and where it ends (the byte after)."""

    offset: int
    end: int
    note: dict[str, Any]
    body: bytes


def segment_path(folder: Path, number: int) -> Path:
    """Where the segment with this number lies."""
    return folder / f"{number:06d}.seg"


def find_segments(folder: Path) -> tuple[list[int], list[int]]:
    """The numbers of the segments that make up a journal, in order; and of those that a compaction has left behind.

    Raises:
        MachineError: one cannot be read.
    """
    numbers = sorted(int(path.stem) for path in folder.glob("[0-9]*.seg"))
    for place in reversed(range(len(numbers))):
        if _starts_alone(segment_path(folder, numbers[place])):
            return numbers[place:], numbers[:place]
    return numbers, []


def scan_journal(folder: Path) -> Iterator[tuple[int, Record]]:
    """All records of a journal, in order, each with its segment's number; the last segment may be torn.

    Raises:
        CorruptFileError: as `scan`.
        MachineError: a segment cannot be read.
    """
    numbers, _ = find_segments(folder)
    for number in numbers:
        for record in scan(segment_path(folder, number), may_be_torn=number == numbers[-1]):
            yield number, record


def encode(note: dict[str, Any], body: bytes = b"") -> bytes:
    """A record as it stands in a file."""
    text = orjson.dumps(note)
    fields = _FIELDS.pack(_MARK, len(text), len(body), zlib.crc32(body, zlib.crc32(text)))
    return b"".join((fields, _CHECK.pack(zlib.crc32(fields)), text, body))


def read_record(file: BinaryIO, offset: int, path: Path) -> Record:
    """The record that starts at `offset`.

    Raises:
        CorruptFileError: there is no whole record there.
    """
    record = _read(file, offset)
    if record is None:
        raise _corrupt(path, offset)
    return record


def scan(path: Path, *, may_be_torn: bool) -> Iterator[Record]:
    """All records of a file, in order; with `may_be_torn` it may end in the middle of one.

    Raises:
        CorruptFileError: a record is broken though more follows, or the end is torn where it may not be.
        MachineError: the file cannot be read.
    """
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(len(MAGIC))
        if start not in (MAGIC, STANDS_ALONE) and not (may_be_torn and MAGIC.startswith(start)):
            raise _corrupt(path, 0)
        offset = len(MAGIC)
        while offset < size:
            record = _read(file, offset)
            if record is None:
                if may_be_torn and not _has_whole_record(file, offset + 1):
                    return
                raise _corrupt(path, offset)
            yield record
            offset = record.end


def _starts_alone(path: Path) -> bool:
    with _open(path) as file:
        return file.read(len(STANDS_ALONE)) == STANDS_ALONE


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise MachineError("the journal cannot be read", where=str(path), found=error.strerror) from error


def _read(file: BinaryIO, offset: int) -> Record | None:
    """The whole record at `offset`, None where there is none."""
    file.seek(offset)
    sizes = _parse_header(file.read(HEADER_BYTES))
    if sizes is None:
        return None
    note_bytes, body_bytes, check = sizes
    text, body = file.read(note_bytes), file.read(body_bytes)
    if len(body) != body_bytes or zlib.crc32(body, zlib.crc32(text)) != check:
        return None
    return Record(offset, offset + HEADER_BYTES + note_bytes + body_bytes, orjson.loads(text), body)


def _parse_header(header: bytes) -> tuple[int, int, int] | None:
    if len(header) < HEADER_BYTES:
        return None
    fields, check = header[: _FIELDS.size], _CHECK.unpack(header[_FIELDS.size :])[0]
    mark, note_bytes, body_bytes, content_check = _FIELDS.unpack(fields)
    if mark != _MARK or zlib.crc32(fields) != check:
        return None
    return note_bytes, body_bytes, content_check


def _has_whole_record(file: BinaryIO, offset: int) -> bool:
    """Whether a whole record starts anywhere at or after `offset`: then what lies before it is no torn end but damage."""
    file.seek(offset)
    rest = file.read()
    at = rest.find(_MARK)
    while at >= 0:
        if _read(file, offset + at) is not None:
            return True
        at = rest.find(_MARK, at + 1)
    return False


def _corrupt(path: Path, offset: int) -> CorruptFileError:
    return CorruptFileError(
        "a record of the journal is damaged",
        where=f"{path}, byte {offset}",
        expected="what was written there: its checksum does not match",
        hint="restore the file from a copy, or move it away and lose the replies that it holds",
    )
