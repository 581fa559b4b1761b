"""Who is asked for a row, how often, and which of the answers are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from potstill.generation.assigning import Assignment
from potstill.generation.candidate import Candidate, answered_row
from potstill.generation.selecting import Selection
from potstill.generation.ways import Teacher
from potstill.rows import Row


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that is wanted: whose, and which of its answers to the row."""

    teacher: Teacher
    sample: int = 0


class Strategy(Protocol):
    """Plans the answers to a row, and chooses among those that came."""

    def asks(self, row: Row) -> Sequence[Ask]:
        """The answers that are wanted, at least one."""
        ...

    async def choose(self, row: Row, candidates: Sequence[Candidate]) -> Sequence[Row]:
        """The rows that the candidates make (`answered_row`); there is at least one candidate, in the order of `asks`."""
        ...


@dataclass(frozen=True, slots=True)
class OneTeacher:
    """One answer of one teacher."""

    teacher: Teacher

    def asks(self, row: Row) -> Sequence[Ask]:
        return [Ask(self.teacher)]

    async def choose(self, row: Row, candidates: Sequence[Candidate]) -> Sequence[Row]:
        return [answered_row(row, candidate) for candidate in candidates]


@dataclass(frozen=True, slots=True)
class Panel:
    """`samples` answers of each teacher that a row is assigned to, and a selection among them.

    A raised number of samples asks for the new ones alone: the number of a sample is part of what the journal knows it by.
    """

    assignment: Assignment[Teacher]
    selection: Selection
    samples: int = 1

    def asks(self, row: Row) -> Sequence[Ask]:
        return [Ask(teacher, sample) for teacher in self.assignment.teachers(row) for sample in range(self.samples)]

    async def choose(self, row: Row, candidates: Sequence[Candidate]) -> Sequence[Row]:
        return await self.selection.choose(row, candidates, asked=len(self.asks(row)))
