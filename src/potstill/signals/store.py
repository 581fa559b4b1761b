"""A teacher's signals on disk, by what the text is: captured once, read by all epochs, students and searches.

A store is a folder: `store.json` says whose signals these are and how they are packed, numbered files hold the records, and one
process at a time may add to them. Others may read meanwhile; what they read is mapped into memory, not copied there first. A
killed writer leaves a torn end, which is dropped; a record that is damaged is an error that names file and place. Opening reads
the newest file's records, 64 MiB at most, and of the others an index; without one they are read through and it is made again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import torch

from potstill.errors import InputError
from potstill.inference.disk import sync_folder, take_lock, unwritable
from potstill.inference.key_index import KeyIndex, place_of, split_place
from potstill.signals.encoding import Encoding
from potstill.signals.header import StoreHeader, check_same, read_header, write_header
from potstill.signals.hidden import HiddenEncoding
from potstill.signals.packing import Body
from potstill.signals.records import Record, encode, file_head
from potstill.signals.segment import Segment
from potstill.signals.signal import Counts, TopK
from potstill.signals.source import TargetBatch

SEGMENT_BYTES = 64 * 2**20
SYNC_SECONDS = 5.0
_CALLED = "the store of captured signals"


class SignalStore:
    """The signals of one teacher in one form.

    Args:
        folder: Where they are; made by a writer where it does not exist.
        header: Whose signals are expected, and in which form; None takes the store as it is.
        writable: Whether this process adds to it; one at a time may.

    Raises:
        InputError: there is no store to read, or it is of another teacher or form.
        RunLockedError: another process is writing to it.
        CorruptFileError: a file of it is damaged.
        MachineError: it cannot be read or written.
    """

    def __init__(self, folder: Path, header: StoreHeader | None = None, *, writable: bool = False) -> None:
        self._folder = folder
        self._lock = take_lock(folder, _CALLED) if writable else None
        self._index = KeyIndex()
        self._segments: dict[int, Segment] = {}
        self._file: BinaryIO | None = None
        self._synced_at = time.monotonic()
        try:
            self.header = self._open_header(header)
            self.refresh()
            if writable:
                self._prepare_writing()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SignalStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        """How many texts have signals here."""
        return len(self._index)

    @property
    def encoding(self) -> Encoding:
        """The form in which its signals are kept."""
        return self.header.encoding

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys without signals here, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if self._segment_of(key) is None]

    def append(self, records: Sequence[Record]) -> None:
        """Add the signals of texts: all of them are kept, or none, whenever this process may be killed.

        Raises:
            MachineError: the disk is full or fails; the store is as it was before.
        """
        if self._file is None:
            raise ValueError("the store was opened for reading")
        if not records:
            return
        number = max(self._segments)
        segment, content = self._segments[number], encode(records)
        try:
            _write_all(self._file, content)
            if time.monotonic() - self._synced_at > SYNC_SECONDS:
                self._sync()
        except OSError as error:
            self._file.truncate(segment.end)
            raise unwritable(self._folder, error, _CALLED) from error
        for key, offset in segment.grew(content):
            self._index.put(key, place_of(number, offset))
        if segment.end >= SEGMENT_BYTES:
            self._begin(number + 1)

    def read(self, keys: Sequence[str], temperature: float) -> TopK | Counts:
        """The signals of texts, one after the other, on the CPU.

        Raises:
            InputError: a text has no signals here, or they are not of this temperature, or no distributions.
            CorruptFileError: a record is damaged.
        """
        if isinstance(self.encoding, HiddenEncoding):
            raise InputError("this store holds hidden states, no distributions", where=str(self._folder))
        return self.encoding.decode(self._bodies(keys), temperature)

    def read_hidden(self, keys: Sequence[str]) -> dict[int, torch.Tensor]:
        """By layer the hidden states of texts, one after the other: (N, width) float32, on the CPU.

        Raises:
            InputError: a text has none here, or the store holds distributions.
            CorruptFileError: a record is damaged.
        """
        if not isinstance(self.encoding, HiddenEncoding):
            raise InputError("this store holds distributions, no hidden states", where=str(self._folder))
        return self.encoding.decode(self._bodies(keys))

    def refresh(self) -> None:
        """Take notice of what another process has written since."""
        numbers = sorted(int(path.stem) for path in self._folder.glob("[0-9]*.sig"))
        last_known = max(self._segments, default=0)
        for number in numbers:
            if number >= last_known:
                self._look_through(number, is_last=number == numbers[-1])

    def close(self) -> None:
        """Bring what was written to the disk, and let others write."""
        try:
            if self._file is not None:
                self._sync()
                self._file.close()
                self._file = None
        except OSError as error:
            raise unwritable(self._folder, error, _CALLED) from error
        finally:
            if self._lock is not None:
                self._lock.release()

    def _open_header(self, wanted: StoreHeader | None) -> StoreHeader:
        found = read_header(self._folder)
        if found is not None:
            if wanted is not None:
                check_same(found, wanted, self._folder)
            return found
        if wanted is None or self._lock is None:
            raise InputError("there are no captured signals", where=str(self._folder), hint="capture them first")
        try:
            write_header(self._folder, wanted)
        except OSError as error:
            raise unwritable(self._folder, error, _CALLED) from error
        return wanted

    def _prepare_writing(self) -> None:
        """Open the newest file behind its last whole records, and give the others the index they may lack."""
        try:
            for segment in [self._segments[number] for number in sorted(self._segments)[:-1]]:
                if not segment.has_index:
                    segment.write_index()
            self._begin(max(self._segments, default=1))
        except OSError as error:
            raise unwritable(self._folder, error, _CALLED) from error

    def _begin(self, number: int) -> None:
        """Write to the file with this number from here on; the one before is whole, and gets its index."""
        if self._file is not None:
            self._sync()
            self._file.close()
            self._segments[number - 1].write_index()
        path = self._folder / f"{number:06d}.sig"
        self._file = path.open("ab", buffering=0)
        segment = self._segments.get(number)
        self._file.truncate(0 if segment is None else segment.end)
        if segment is None or not segment.end:
            _write_all(self._file, file_head(self.header.digest))
            sync_folder(self._folder)
        self._look_through(number, is_last=True)

    def _sync(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
        self._synced_at = time.monotonic()

    def _look_through(self, number: int, *, is_last: bool) -> None:
        segment = self._segments.get(number)
        if segment is None:
            segment = self._segments[number] = Segment(self._folder / f"{number:06d}.sig", self.header.digest)
        for key, offset in segment.entries(is_last=is_last):
            self._index.put(key, place_of(number, offset))

    def _segment_of(self, key: str) -> tuple[Segment, int] | None:
        """The file of a key's record and its place there; the index knows half of the key alone, so the record is asked too."""
        place = self._index.get(key)
        if place is None:
            return None
        number, offset = split_place(place)
        segment = self._segments[number]
        return (segment, offset) if segment.has(offset, key) else None

    def _bodies(self, keys: Sequence[str]) -> list[Body]:
        bodies = []
        for key in keys:
            place = self._index.get(key)
            if place is None:
                self.refresh()
                place = self._index.get(key)
            if place is None:
                missing = self.missing(keys)
                raise InputError(
                    "texts have no captured signals", where=str(self._folder),
                    found=f"{len(missing)} of {len(set(keys))} texts",
                    expected="signals of each text, with this very template", hint="capture them first",
                )
            number, offset = split_place(place)
            bodies.append(self._segments[number].body(offset, key))
        return bodies


class StoredSignals:
    """A store as a `SignalSource`: it gives what its teacher said when the texts were captured."""

    def __init__(self, store: SignalStore) -> None:
        self._store = store

    def signal(self, batch: TargetBatch, temperature: float) -> TopK | Counts:
        """The signals of the batch's keys, on the device of its positions."""
        signal = self._store.read(batch.keys, temperature)
        if len(signal) != len(batch.positions):
            raise ValueError(f"signals of {len(signal)} positions, but a batch of {len(batch.positions)}")
        return signal.to(batch.positions.device)


def _write_all(file: BinaryIO, content: bytes) -> None:
    """All of it; an unbuffered file may take less at once."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
