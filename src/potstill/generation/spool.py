"""Outcomes on disk, written as they come and read back in the order of their rows.

What it costs: eight bytes of memory a row, and a temporary file that is gone when the spool is closed; what has to last is in
the journal. So a stage can work on any number of rows, and a slow one holds none of the others up.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import orjson

from potstill.generation.candidate import Outcome, RejectedRow
from potstill.rows import Row

_MISSING = -1


class Spool:
    """One outcome a row number, in a temporary file of a folder.

    Raises:
        OSError: the folder cannot be written (so does `put`).
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".spool.")  # noqa: SIM115 (closed by `close`)
        self._places = array("q")
        self._end = 0

    def put(self, number: int, outcome: Outcome) -> None:
        """Keep what became of a row."""
        if number >= len(self._places):
            self._places.extend([_MISSING] * (number + 1 - len(self._places)))
        line = orjson.dumps(_as_dict(outcome), option=orjson.OPT_APPEND_NEWLINE)
        self._file.seek(self._end)
        self._file.write(line)
        self._places[number], self._end = self._end, self._end + len(line)

    def __len__(self) -> int:
        return len(self._places)

    def in_order(self, start: int = 0, stop: int | None = None) -> Iterator[Outcome]:
        """The outcomes of the rows from number `start` up to `stop`; may be read as often as needed.

        Raises:
            KeyError: a row has none.
        """
        for number, place in enumerate(self._places[start:stop], start):
            if place == _MISSING:
                raise KeyError(f"row {number} has no outcome")
            self._file.seek(place)
            yield _from_dict(orjson.loads(self._file.readline()))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exit_info: object) -> None:
        self.close()


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, RejectedRow):
        return {"rejected": outcome.row.as_dict(), "reason": outcome.reason}
    return {"rows": [row.as_dict() for row in outcome]}


def _from_dict(data: Mapping[str, Any]) -> Outcome:
    if "rejected" in data:
        return RejectedRow(Row.from_dict(data["rejected"]), data["reason"])
    return tuple(Row.from_dict(entry) for entry in data["rows"])
