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
    if bad and on_bad_row == "fail":
        raise _bad_row(bad)
    if not rows:
        found = f"{len(bad)} bad rows, the first: {bad[0].why} ({bad[0].where})" if bad else None
        raise InputError("the data file holds no rows", where=str(source), found=found)
    return RowsRead(rows, bad)


def _free_id(wanted: str, copy: int, taken: dict[str, Row]) -> str:
    number = copy + 1
    while f"{wanted}-{number}" in taken:
        number += 1
    return f"{wanted}-{number}"


def _bad_row(bad: Sequence[BadRecord]) -> DataError:
    first = bad[0]
    more = f" ({len(bad) - 1} more rows are bad)" if len(bad) > 1 else ""
    return DataError(
        f"a row cannot be read{more}", where=first.where, found=first.why,
        hint="mend it, or set data.on_bad_row: drop to leave such rows out",
    )
