"""Rows of a file, one after the other and by number, none of them kept in memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import orjson

from potstill.rows import Row, damaged


class RowSource(Protocol):
    """Rows that can be gone through, and read again by their number; a list is one."""

    def __iter__(self) -> Iterator[Row]: ...

    def __getitem__(self, index: int, /) -> Row: ...


class RowFile:
    """The rows of a file that `write_rows` wrote. To read one by number, go through all of them first; 8 bytes a row."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._offsets = array("Q")

    def __iter__(self) -> Iterator[Row]:
        """All rows.

        Raises:
            CorruptFileError: a line is not what was written.
        """
        known, offset = len(self._offsets), 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines):
                if number >= known:
                    self._offsets.append(offset)
                offset += len(line)
                yield self._row(line, number)

    def __getitem__(self, index: int) -> Row:
        self._file.seek(self._offsets[index])
        return self._row(self._file.readline(), index)

    def close(self) -> None:
        self._file.close()

    def _row(self, line: bytes, number: int) -> Row:
        try:
            return Row.from_dict(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise damaged(self._path, number + 1, error.msg) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise damaged(self._path, number + 1, "no row") from error
