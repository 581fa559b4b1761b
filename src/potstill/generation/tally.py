"""How teachers compare: of each, how many answers were asked for and came, and how right those are by the gold answers.

It counts every answer, those included that are not kept. What it costs: eight bytes an answer to a row with a gold answer.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

from potstill.generation.candidate import Candidate, Failure
from potstill.generation.growth import is_claim
from potstill.generation.ways import Dialogue, Teacher, Way
from potstill.rows import Row
from potstill.tasks import Task


@dataclass(slots=True)
class Tally:
    """The answers of one teacher. scores: the task's main metric of each answer to a row that has a gold answer."""

    asked: int = 0
    answered: int = 0
    scores: array[float] = field(default_factory=lambda: array("d"))

    def note(self, row: Row, answer: Candidate | Failure, task: Task) -> None:
        """Count an answer that was asked for."""
        self.asked += 1
        if isinstance(answer, Failure):
            return
        self.answered += 1
        if row.reference is not None and not is_claim(row):
            said = list(answer.texts) if len(answer.texts) > 1 else answer.texts[0]
            self.scores.extend(task.score([said], [row]).per_row[task.main_metric])


@dataclass(frozen=True, slots=True)
class Counted:
    """Another way to ask, whose answers are counted by the name of the teacher."""

    way: Way
    task: Task
    tallies: Mapping[str, Tally]

    async def ask(self, teacher: Teacher, row: Row, sample: int) -> Candidate | Failure:
        answer = await self.way.ask(teacher, row, sample)
        self.tallies[teacher.name].note(row, answer, self.task)
        return answer

    def longest(self, row: Row, max_tokens: int) -> Dialogue:
        return self.way.longest(row, max_tokens)
