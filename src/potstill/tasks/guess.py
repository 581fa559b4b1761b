"""Which task a file is for, by the fields of its first record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.errors import InputError
from potstill.rows import Record, read_records

_FIELDS = (
    ("nli", {"premise", "hypothesis"}),
    ("conversation", {"messages"}),
    ("summarization", {"document"}),
    ("qa", {"question", "context"}),
    ("qa", {"question", "choices"}),
    ("qa", {"question", "answers"}),
    ("classification", {"text", "label"}),
    ("text", {"prompt"}),
    ("text", {"instruction"}),
)
_FINAL_NUMBER = "####"  # what marks the final number of a worked answer in GSM8K


def guess_task(source: str | Path) -> str:
    """The task whose form the first record of a file has.

    Raises:
        InputError: the file cannot be read, or its first record has the form of none.
    """
    records = (record for record in read_records(source) if isinstance(record, Record))
    first = next(records, None)
    if first is None:
        raise InputError("the data file holds no rows", where=str(source))
    task = _by_fields(first.data)
    if task is None:
        raise InputError("the task cannot be told from the rows", where=first.where, found=", ".join(map(str, first.data)),
                         expected="the fields of one task", hint="name it: load_dataset(path, task=...)")
    return task


def _by_fields(record: Mapping[str, Any]) -> str | None:
    for task, fields in _FIELDS:
        if fields <= set(record):
            return task
    if {"question", "answer"} <= set(record):
        return "math" if _is_worked(str(record["answer"])) else "qa"
    return None


def _is_worked(answer: str) -> bool:
    """Whether an answer is a number, or ends in one that is marked as the final one."""
    number = answer.rpartition(_FINAL_NUMBER)[2].strip().replace(",", "").removeprefix("$").removesuffix("%")
    try:
        float(number)
    except ValueError:
        return False
    return True
