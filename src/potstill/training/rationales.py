"""What a student learns of a teacher's reasoning.

In: curated rows, whose last turn is the bare answer and whose `meta` holds the reasoning. Out: the dialogues to train on. With
`discard` they are the rows as they stand. With `train` the answer is preceded by the reasoning, in one text from which the
task reads the answer again. With `multitask` there are two tasks, as in Hsieh et al. 2023, "Distilling Step-by-Step!"
(arXiv:2305.02301): the rows as they stand, and each once more with the wish for the reasoning, which is then the target. Such a
student is asked for answers alone, and pays nothing for the reasoning when it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from potstill.rows import Message, Row
from potstill.spec_ways import Rationale
from potstill.tasks import Task


def answer_rows(rows: Iterable[Row], rationale: Rationale, task: Task) -> list[Row]:
    """The dialogues that end in an answer; a row without reasoning ends in its bare answer."""
    if rationale != "train":
        return list(rows)
    return [_with_last(row, task.worked(own, row.messages[-1].content)) if (own := rationale_of(row)) else row for row in rows]


def rationale_rows(rows: Iterable[Row], rationale: Rationale, task: Task) -> list[Row]:
    """The dialogues that end in reasoning, under an id of their own; none but for `multitask`."""
    if rationale != "multitask":
        return []
    return [
        replace(row, id=f"{row.id}#rationale", messages=(*task.rationale_messages(row), Message("assistant", own)))
        for row in rows
        if (own := rationale_of(row))
    ]


def rationale_of(row: Row) -> str | None:
    """The reasoning that a generated row came with."""
    own = row.meta.get("rationale")
    return own if isinstance(own, str) and own.strip() else None


def _with_last(row: Row, text: str) -> Row:
    return replace(row, messages=(*row.messages[:-1], Message("assistant", text)))
