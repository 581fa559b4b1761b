"""Outcomes on disk: they come in any order, are read in that of their rows, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.generation import RejectedRow, Spool
from potstill.rows import Message, Row


def row(number: int) -> Row:
    return Row(f"r{number}", (Message("user", f"line {number}\nand more"),), reference="é", meta={"finish_reasons": ["stop"]})


def test_outcomes_come_back_in_the_order_of_their_rows_as_often_as_asked(tmp_path: Path) -> None:
    outcomes = {2: (row(2), row(22)), 0: RejectedRow(row(0), "no reply"), 1: (row(1),)}
    with Spool(tmp_path) as spool:
        for number, outcome in outcomes.items():
            spool.put(number, outcome)
        assert list(spool.in_order()) == [outcomes[0], outcomes[1], outcomes[2]]
        assert list(spool.in_order(1, 2)) == [outcomes[1]]
        spool.put(3, (row(3),))
        assert list(spool.in_order(2)) == [outcomes[2], (row(3),)]
        assert len(spool) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_row_without_an_outcome_is_not_passed_over(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.put(1, (row(1),))
        with pytest.raises(KeyError, match="row 0"):
            list(spool.in_order())
