"""The rows of a file, for a task.

In: a data file or hub data set. Out: rows with ids of their own, and the records that are no rows, each with its place and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from potstill.errors import DataError, InputError
from potstill.rows import BadRecord, Row, read_records
from potstill.tasks.base import RowError, Task


@dataclass(frozen=True, slots=True)
class RowsRead:
    """What a file holds. dropped is empty unless bad rows may be dropped."""

    rows: list[Row]
    dropped: list[BadRecord]


def read_rows_of(source: Path | str, task: Task, *, on_bad_row: Literal["fail", "drop"]) -> RowsRead:
    """Read a file of any accepted format as rows of a task.

    Raises:
        InputError: the file is missing, of an unknown format, or holds no rows.
        DataError: a record is no row and `on_bad_row` is "fail", or two rows with one id differ.
    """
    read = scan_rows_of(source, task)
    if read.dropped and on_bad_row == "fail":
        raise bad_row_error(read.dropped[0], len(read.dropped) - 1)
    if not read.rows:
        raise no_rows_error(source, read.dropped)
    return read


def scan_rows_of(source: Path | str, task: Task) -> RowsRead:
    """Read a file, and go on after records that are no rows.

    Raises:
        InputError: the file is missing, or of an unknown format.
    """
    rows: list[Row] = []
    bad: list[BadRecord] = []
    seen: dict[str, Row] = {}
    copies: Counter[str] = Counter()
    for record in read_records(source):
        if isinstance(record, BadRecord):
            bad.append(record)
            continue
        try:
            row = task.row(record.data)
        except RowError as error:
            bad.append(BadRecord(record.file, record.line, str(error)))
            continue
        known = seen.get(row.id)
        if known is not None:
            if known.messages != row.messages:
                bad.append(BadRecord(record.file, record.line, f"the id {row.id!r} stands for another row already"))
                continue
            copies[row.id] += 1
            row = replace(row, id=_free_id(row.id, copies[row.id], seen))
        seen[row.id] = row
        rows.append(row)
    return RowsRead(rows, bad)


def _free_id(wanted: str, copy: int, taken: dict[str, Row]) -> str:
    number = copy + 1
    while f"{wanted}-{number}" in taken:
        number += 1
    return f"{wanted}-{number}"


def bad_row_error(bad: BadRecord, others: int = 0) -> DataError:
    """A record that is no row; `others` counts those that are not named."""
    more = f" ({others} more rows are bad)" if others else ""
    return DataError(
        f"a row cannot be read{more}", where=bad.where, found=bad.why,
        hint="mend it, or set data.on_bad_row: drop to leave such rows out",
    )


def no_rows_error(source: Path | str, bad: Sequence[BadRecord]) -> InputError:
    """A file without a single row."""
    found = f"{len(bad)} bad rows, the first: {bad[0].why} ({bad[0].where})" if bad else None
    return InputError("the data file holds no rows", where=str(source), found=found)
