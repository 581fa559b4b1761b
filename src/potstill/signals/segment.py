"""One file of a signal store, mapped into memory and read from there."""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from potstill.errors import InputError, MachineError
from potstill.signals.packing import Array, Body
from potstill.signals.records import FILE_HEAD_BYTES, Entry, damaged, file_head, key_at, read_body, scan

_INDEX_ENTRY = np.dtype([("key", "V16"), ("offset", "<u8")])


class Segment:
    """A file, as far as it has been looked through; it may grow while another process writes."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self._digest = digest
        self._mapped = memoryview(b"")
        self.end = 0  # of what counts

    def entries(self, *, is_last: bool) -> Iterator[tuple[str, int]]:
        """Keys and offsets of the records that were not told of yet. A file that others follow is whole, and has an index.

        Raises:
            InputError: the file is of another store.
            CorruptFileError: a record is broken though others follow it.
            MachineError: it cannot be read.
        """
        self._map()
        if not self.end:
            head, expected = bytes(self._mapped[:FILE_HEAD_BYTES]), file_head(self._digest)
            if is_last and len(head) < FILE_HEAD_BYTES and expected.startswith(head):
                return
            if head != expected:
                raise self._foreign(head)
            self.end = FILE_HEAD_BYTES
            indexed = None if is_last else self._read_index()
            if indexed is not None:
                self.end = len(self._mapped)
                yield from indexed
                return
        found, self.end = scan(self._mapped, self.end, self.path, may_be_torn=is_last)
        yield from ((entry.key, entry.offset) for entry in found)

    def grew(self, content: bytes) -> Iterator[tuple[str, int]]:
        """Keys and offsets of records that this process has just written at the end, without a look at the file."""
        found, _ = scan(memoryview(content), 0, self.path, may_be_torn=False)
        start, self.end = self.end, self.end + len(content)
        yield from ((entry.key, start + entry.offset) for entry in found)

    def body(self, offset: int, key: str) -> Body:
        """The body of the record at `offset`, which is of this key.

        Raises:
            CorruptFileError: it is damaged.
        """
        self._map_up_to(offset)
        return read_body(self._mapped, offset, key, self.path)

    def has(self, offset: int, key: str) -> bool:
        """Whether the record at `offset` is of this key."""
        self._map_up_to(offset)
        return key_at(self._mapped, offset) == key

    def write_index(self) -> None:
        """Write down where each record lies, for a file that grows no more, so that opening the store need not read it.

        Raises:
            MachineError, CorruptFileError: the file cannot be read.
        """
        self._map()
        entries, _ = scan(self._mapped, FILE_HEAD_BYTES, self.path, may_be_torn=False)
        table, size = _index_of(entries), len(self._mapped)
        self._mapped = memoryview(b"")  # until somebody reads of it
        draft = self._index_path.with_suffix(".tmp")
        draft.write_bytes(zlib.crc32(table).to_bytes(4, "little") + size.to_bytes(8, "little") + table)
        draft.replace(self._index_path)

    @property
    def has_index(self) -> bool:
        """Whether there is an index beside it."""
        return self._index_path.is_file()

    @property
    def _index_path(self) -> Path:
        return self.path.with_suffix(".idx")

    def _read_index(self) -> list[tuple[str, int]] | None:
        """What the index says; None where there is none, or it is not of this file as it is now."""
        try:
            content = self._index_path.read_bytes()
        except FileNotFoundError:
            return None
        check, size, table = content[:4], content[4:12], content[12:]
        if zlib.crc32(table).to_bytes(4, "little") != check or int.from_bytes(size, "little") != len(self._mapped):
            return None
        entries = np.frombuffer(table, _INDEX_ENTRY)
        keys = _as_hexadecimal(entries["key"])
        return list(zip(keys, entries["offset"].tolist(), strict=True))

    def _map_up_to(self, offset: int) -> None:
        if offset >= len(self._mapped) or self.end > len(self._mapped):
            self._map()

    def _map(self) -> None:
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size and size != len(self._mapped):  # an empty file cannot be mapped
                    self._mapped = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
        except OSError as error:
            raise MachineError("captured signals cannot be read", where=str(self.path), found=error.strerror) from error

    def _foreign(self, head: bytes) -> Exception:
        if head[:8] != file_head(self._digest)[:8]:
            return damaged(self.path, 0)
        return InputError(
            "this file holds signals of another store", where=str(self.path), hint="move it back where it was written",
        )


def _index_of(entries: Iterable[Entry]) -> bytes:
    rows = [(np.void(bytes.fromhex(entry.key)), entry.offset) for entry in entries]
    return np.array(rows, _INDEX_ENTRY).tobytes()


def _as_hexadecimal(keys: Array) -> list[str]:
    """Keys of 16 bytes each as hexadecimal digits."""
    digits = keys.tobytes().hex()
    return [digits[at : at + 32] for at in range(0, len(digits), 32)]
