"""The first look at a teacher, before the rest is paid for: are its answers of use, and how right are they?

What goes in: the first rows of a run, and some with gold answers, all of which have to be answered anyway. What comes out: a
`Smoke` (which answers are of no use, and why) and a `Score` (the task's main metric). What it costs: nothing more than the rows
cost in any case, for the journal keeps the answers, except that the rest waits for them. Whether an answer is right is no part
of the smoke: that is what the score is for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from potstill.errors import JobFailedError
from potstill.generation.answers import generate_answers
from potstill.generation.candidate import Outcome, RejectedRow
from potstill.generation.strategies import Strategy
from potstill.generation.ways import Way
from potstill.rows import Row
from potstill.tasks import Task, looks_refused

SMOKE_ROWS = 16
SMOKE_GOOD = 14
SCORED_ROWS = 64  # rows with a gold answer that are asked first besides, where there are as many
_TOLD_ROWS = 3
_WHAT_TO_DO = {
    "truncated": "raise generation.max_tokens",
    "refused": "take another teacher, or leave out what it refuses",
    "unparsable": "say in the rows' messages what form the answer has to have, or take another teacher",
    "unanswered": "see that the endpoint serves this model",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer of no use: the row's id, what kind of fault (a key of what to do), and the reason in words."""

    row: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Smoke:
    """How many rows were asked first, and which answers are of no use."""

    asked: int
    faults: tuple[Fault, ...]

    @property
    def needed(self) -> int:
        """How many answers have to be of use: 14 of 16, and the same share of fewer."""
        return math.ceil(self.asked * SMOKE_GOOD / SMOKE_ROWS)

    @property
    def passed(self) -> bool:
        return self.asked - len(self.faults) >= self.needed

    def told(self) -> str:
        """Counts by kind, and the first rows with their reasons."""
        counts = Counter(fault.kind for fault in self.faults)
        first = "; ".join(f"{fault.row}: {fault.reason}" for fault in self.faults[:_TOLD_ROWS])
        return f"{', '.join(f'{count} {kind}' for kind, count in counts.most_common())} ({first})"

    def error(self, teacher: str) -> JobFailedError:
        """What stops the run."""
        worst = Counter(fault.kind for fault in self.faults).most_common(1)[0][0]
        return JobFailedError(
            f"only {self.asked - len(self.faults)} of the first {self.asked} answers of {teacher} are of use; the rest was not "
            "asked for",
            found=self.told(),
            expected=f"at least {self.needed}",
            hint=f"{_WHAT_TO_DO[worst]}, then run again; answers to what stays as it is are kept",
        )


@dataclass(frozen=True, slots=True)
class Score:
    """A teacher's own score: the task's main metric over `rows` rows with a gold answer; a missing answer is a wrong one."""

    metric: str
    value: float
    rows: int

    def told(self, teacher: str) -> str:
        rows = "one row" if self.rows == 1 else f"{self.rows} rows"
        return f"{teacher} scores {self.value:.3f} in {self.metric} on the first {rows} with a gold answer"

    def error(self, teacher: str, wanted: float) -> JobFailedError:
        """What stops the run where the score is below what the job asks for."""
        return JobFailedError(
            "the teacher is not good enough to be learnt from; the rest was not asked for",
            where="key 'generation.min_teacher_score' of the job file",
            found=self.told(teacher),
            expected=f"at least {wanted:g}",
            hint="take a better teacher, mend its prompts, or lower the key; then run again",
        )


@dataclass(frozen=True)
class Gate:
    """What a teacher has to pass before the rest is asked.

    smoke: the first rows of the run. scored: further rows with gold answers, to score it by beside those of the first.
    min_score: the score below which the run stops. stops: whether too many answers of no use stop it too; a teacher that costs
    no money only gives a warning, for its answers may be cut off or unreadable by half and the rest still worth having.
    knows_first: whether the teacher was tuned on the gold answers of the first rows, which then say nothing of it.
    at_once: ask both together, where every round is a batch that may take hours.
    """

    task: Task
    smoke: Sequence[Row]
    scored: Sequence[Row]
    min_score: float | None = None
    stops: bool = True
    knows_first: bool = False
    at_once: bool = False

    async def passing(
        self, teacher: str, way: Way, strategy: Strategy, *, concurrency: int, say: Callable[[str], None]
    ) -> Score | None:
        """Ask the first rows, and say what came of it; the score, where there are gold answers.

        Raises:
            JobFailedError: too few answers are of use, or they are not right often enough.
            BudgetError, EndpointError: as `generate_answers`.
        """
        together = [*self.smoke, *self.scored] if self.at_once else self.smoke
        outcomes = await first_answers(together, way, strategy, concurrency=concurrency)
        outcomes, more = outcomes[: len(self.smoke)], outcomes[len(self.smoke) :]
        smoke = look_for_faults(self.smoke, outcomes, self.task)
        if not smoke.passed and self.stops:
            raise smoke.error(teacher)
        if not smoke.passed:
            say(f"of the first {smoke.asked} answers {len(smoke.faults)} are of no use: {smoke.told()}")
        if not self.at_once:
            more = await first_answers(self.scored, way, strategy, concurrency=concurrency)
        first, answered = ([], []) if self.knows_first else (self.smoke, outcomes)
        score = score_answers([*first, *self.scored], [*answered, *more], self.task)
        if score is not None:
            say(score.told(teacher))
        if score is not None and self.min_score is not None and score.value < self.min_score:
            raise score.error(teacher, self.min_score)
        return score


async def first_answers(rows: Sequence[Row], way: Way, strategy: Strategy, *, concurrency: int) -> list[Outcome]:
    """What becomes of these rows, in their order.

    Raises:
        As `generate_answers`.
    """
    if not rows:
        return []
    outcomes: dict[int, Outcome] = {}
    await generate_answers(rows, way, strategy, concurrency=min(concurrency, len(rows)), on_row=outcomes.__setitem__)
    return [outcomes[number] for number in range(len(rows))]


def look_for_faults(rows: Sequence[Row], outcomes: Sequence[Outcome], task: Task) -> Smoke:
    """Which of the rows have no answer of use; of several answers to a row one is enough."""
    faults = [fault for row, outcome in zip(rows, outcomes, strict=True) if (fault := _fault(row, outcome, task)) is not None]
    return Smoke(len(rows), tuple(faults))


def score_answers(rows: Sequence[Row], outcomes: Sequence[Outcome], task: Task) -> Score | None:
    """The score of the first answer to each row that has a gold one; None where none has."""
    pairs = [(row, outcome) for row, outcome in zip(rows, outcomes, strict=True) if row.reference is not None]
    if not pairs:
        return None
    metric = task.main_metric
    said = [_said(row, outcome, task) for row, outcome in pairs]
    scores = task.score(said, [row for row, _ in pairs])
    per_row = scores.per_row.get(metric)
    value = sum(per_row) / len(per_row) if per_row else scores.corpus[metric]
    return Score(metric, value, len(pairs))


def _fault(row: Row, outcome: Outcome, task: Task) -> Fault | None:
    if isinstance(outcome, RejectedRow):
        return Fault(row.id, "unanswered", outcome.reason)
    faults = [_fault_of_answer(answered, task) for answered in outcome]
    if not faults:
        return Fault(row.id, "unanswered", "none of its answers was kept")
    return None if None in faults else faults[0]


def _fault_of_answer(row: Row, task: Task) -> Fault | None:
    finish, texts = row.meta.get("finish_reasons", ()), _answers(row, task)
    if "refused" in finish:
        return Fault(row.id, "refused", "the endpoint filtered or refused the answer")
    if any(map(looks_refused, texts)) and not any(map(looks_refused, row.references)):
        return Fault(row.id, "refused", "the teacher declined to answer")
    if "length" in finish and not task.tolerates_cut:
        return Fault(row.id, "truncated", "cut off at generation.max_tokens")
    for text in texts:
        parsed = task.parse(text, row)
        if parsed.value is None:
            return Fault(row.id, "unparsable", str(parsed.reason))
    return None


def _answers(row: Row, task: Task) -> list[str]:
    return [message.content for message in row.messages if message.role == "assistant"][-task.turns(row) :]


def _said(row: Row, outcome: Outcome, task: Task) -> str | list[str]:
    answered = () if isinstance(outcome, RejectedRow) else outcome[:1]
    texts = _answers(answered[0], task) if answered else [""] * task.turns(row)
    return texts if len(texts) > 1 else texts[0]
