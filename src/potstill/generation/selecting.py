"""Which of several answers to a row are kept.

A gold answer is a witness here, and nobody is shown it: an answer that contradicts it is not chosen where another does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from potstill.generation.candidate import Candidate, answered_row
from potstill.rows import Row
from potstill.tasks import Task

# A judge's score of an answer, given the row and the texts of its turns; None where it has none.
Judge = Callable[[Row, Sequence[str]], Awaitable[float | None]]


class Selection(Protocol):
    """Makes rows of the answers to one."""

    async def choose(self, row: Row, candidates: Sequence[Candidate], *, asked: int) -> Sequence[Row]:
        """The rows to keep; `asked` answers were wanted, of which these came, at least one."""
        ...


@dataclass(frozen=True, slots=True)
class All:
    """Every answer of which the student would learn something else than of those before it, as a row of its own.

    With `reasoned`, answers that say the same differ by their reasoning, because the student learns that too. The rows are
    called ID, ID#2, ID#3 and so on, by the number of the answer; `prompt_id` in their meta is ID for all, so that they are not
    taken for copies of one another.
    """

    task: Task
    reasoned: bool = False

    async def choose(self, row: Row, candidates: Sequence[Candidate], *, asked: int) -> Sequence[Row]:
        if asked == 1:
            return [answered_row(row, candidates[0])]
        kept: dict[tuple[str | None, ...], Row] = {}
        for candidate in candidates:
            targets = (self.task.target(text, row) for text in candidate.texts)
            said = (*(" ".join(text.lower().split()) for text in targets), candidate.rationale if self.reasoned else None)
            number = candidate.sample + 1
            own = row if number == 1 else replace(row, id=f"{row.id}#{number}")
            kept.setdefault(said, answered_row(own, candidate, prompt_id=row.id, sample=candidate.sample))
        return list(kept.values())


@dataclass(frozen=True, slots=True)
class Best:
    """The first answer that agrees with the gold answer.

    Where the row has no gold answer that can be compared, the answer that the judge scores highest, the first of equals. Where
    no answer is right, the first that is whole and can be read, for curation to look at. `verified` in meta says which it was;
    `judge_score` is the judge's.
    """

    task: Task
    judge: Judge | None = None

    async def choose(self, row: Row, candidates: Sequence[Candidate], *, asked: int) -> Sequence[Row]:
        verdicts = [self.task.verify(candidate.texts[-1], row) for candidate in candidates]
        if True in verdicts:
            return [answered_row(row, candidates[verdicts.index(True)], verified=True)]
        usable = [candidate for candidate in candidates if is_usable(candidate, row, self.task)] or list(candidates)
        if False in verdicts:
            return [answered_row(row, usable[0], verified=False)]
        if self.judge is None:
            return [answered_row(row, usable[0], verified=None)]
        scores = [await self.judge(row, candidate.texts) for candidate in usable]
        best = max(range(len(usable)), key=lambda place: (-1.0 if (score := scores[place]) is None else score, -place))
        return [answered_row(row, usable[best], verified=None, judge_score=scores[best])]


@dataclass(frozen=True, slots=True)
class Vote:
    """The answer that most answers agree on (Wang et al. 2022, arXiv:2203.11171), in the words of the first of them.

    Answers agree where the task reads the same label, number or text from them. Cut and unreadable ones have no vote, nor, with
    `verify`, have those that contradict the gold answer, unless all do. Of equally many votes those win whose first answer came
    first: by the order of the teachers, then of the samples. `agreement` in meta is the winners' share of all answers wanted.
    """

    task: Task
    verify: bool = True

    async def choose(self, row: Row, candidates: Sequence[Candidate], *, asked: int) -> Sequence[Row]:
        voters = [candidate for candidate in candidates if is_usable(candidate, row, self.task)]
        if self.verify:
            right = [candidate for candidate in voters if self.task.verify(candidate.texts[-1], row) is not False]
            voters = right or voters
        if not voters:
            return [answered_row(row, candidates[0], agreement=0.0)]
        parties: list[tuple[str, list[Candidate]]] = []
        for candidate in voters:
            value = self.task.parse(candidate.texts[-1], row).value or ""
            party = next((members for other, members in parties if self.task.same_answer(value, other)), None)
            if party is None:
                parties.append((value, [candidate]))
            else:
                party.append(candidate)
        winners = max((members for _, members in parties), key=len)
        return [answered_row(row, winners[0], agreement=round(len(winners) / asked, 4))]


def is_usable(candidate: Candidate, row: Row, task: Task) -> bool:
    """Whether an answer is whole, and each turn of it can be read."""
    whole = task.tolerates_cut or "length" not in candidate.finish_reasons
    return whole and "refused" not in candidate.finish_reasons and all(
        task.parse(text, row).value is not None for text in candidate.texts
    )
