"""The files of a signal store: what a record is, and how a file is read that a process may have died over.

A file starts with a mark and the digest of its store's header; records follow without gaps. A record is 44 bytes of head (mark,
whether others were written with it and follow, target positions, length of the body, CRC-32 of the body, the text's key, CRC-32
of the head so far; little-endian) and the body. Records that were written together count together: a process that dies while it
writes leaves some of them, which are no part of the store, and are cut off when the next writer comes. Anything broken before a
whole record is damage, for then the file is not what was written.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.errors import CorruptFileError
from potstill.signals.packing import Body

MAGIC = b"PSSIG01\n"
_MARK = b"\xf5SIG"
_FIELDS = struct.Struct("<4sIIQI16s")
_CHECK = struct.Struct("<I")
HEAD_BYTES = _FIELDS.size + _CHECK.size
FILE_HEAD_BYTES = len(MAGIC) + 16


@dataclass(frozen=True, slots=True)
class Record:
    """One text's signals: its key, the number of its target positions, and what an encoding packed of them."""

    key: str
    positions: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a record lies: its key, its first byte, and the byte after its last."""

    key: str
    offset: int
    end: int
    positions: int
    more_follow: bool


def file_head(digest: str) -> bytes:
    """What a file of the store with this header's digest starts with."""
    return MAGIC + bytes.fromhex(digest)


def encode(records: Sequence[Record]) -> bytes:
    """Records that are written together, as they stand in a file."""
    parts = []
    for left, record in zip(reversed(range(len(records))), records, strict=True):
        check, size = zlib.crc32(record.content), len(record.content)
        fields = _FIELDS.pack(_MARK, int(left > 0), record.positions, size, check, bytes.fromhex(record.key))
        parts += [fields, _CHECK.pack(zlib.crc32(fields)), record.content]
    return b"".join(parts)


def scan(content: memoryview, start: int, path: Path, *, may_be_torn: bool) -> tuple[list[Entry], int]:
    """All records from byte `start` on that count, in order, and where the last of them ends.

    Raises:
        CorruptFileError: one is broken though others follow it, or the end is torn where it may not be.
    """
    found: list[Entry] = []
    counted, offset = 0, start
    while offset < len(content):
        entry = _entry(content, offset)
        if entry is None or not _is_whole(content, entry):
            if not may_be_torn or _has_whole_record(content, offset + 1):
                raise damaged(path, offset)
            break
        found.append(entry)
        offset = entry.end
        if not entry.more_follow:
            counted, start = len(found), offset
    return found[:counted], start


def read_body(content: memoryview, offset: int, key: str, path: Path) -> Body:
    """The body of the record at `offset`, which has to be of this key.

    Raises:
        CorruptFileError: there is no whole record there.
    """
    entry = _entry(content, offset)
    if entry is None or entry.key != key or not _is_whole(content, entry):
        raise damaged(path, offset)
    return Body(entry.positions, content[offset + HEAD_BYTES : entry.end])


def key_at(content: memoryview, offset: int) -> str | None:
    """The key of the record at `offset`; None where its head is damaged."""
    entry = _entry(content, offset)
    return None if entry is None else entry.key


def damaged(path: Path, offset: int) -> CorruptFileError:
    """What is said of a file that is not what was written."""
    return CorruptFileError(
        "a record of captured signals is damaged", where=f"{path}, byte {offset}",
        expected="what was written there: its checksum does not match",
        hint="restore the file from a copy, or delete it: the signals in it are captured again",
    )


def _entry(content: memoryview, offset: int) -> Entry | None:
    """What the head at `offset` says; None where it is cut off or damaged. The body may reach beyond the file's end."""
    head = content[offset : offset + HEAD_BYTES]
    if len(head) < HEAD_BYTES:
        return None
    mark, more_follow, positions, size, _, key = _FIELDS.unpack_from(head)
    if mark != _MARK or zlib.crc32(head[: _FIELDS.size]) != _CHECK.unpack_from(head, _FIELDS.size)[0]:
        return None
    return Entry(key.hex(), offset, offset + HEAD_BYTES + size, positions, bool(more_follow))


def _is_whole(content: memoryview, entry: Entry) -> bool:
    check: int = _FIELDS.unpack_from(content, entry.offset)[4]
    return entry.end <= len(content) and zlib.crc32(content[entry.offset + HEAD_BYTES : entry.end]) == check


def _has_whole_record(content: memoryview, offset: int) -> bool:
    """Whether a whole record starts at or after `offset`: then what lies before it is no torn end but damage."""
    rest = bytes(content[offset:])
    at = rest.find(_MARK)
    while at >= 0:
        entry = _entry(content, offset + at)
        if entry is not None and _is_whole(content, entry):
            return True
        at = rest.find(_MARK, at + 1)
    return False
