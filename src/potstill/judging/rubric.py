"""What a judge is told to look for, and the scores it may give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from potstill.tasks import Task


@dataclass(frozen=True, slots=True)
class Scale:
    """The scores from `low` to `high`; an answer is accepted from `accepted_from` on. told: what they mean, for the judge."""

    name: str
    low: float
    high: float
    accepted_from: float
    told: str

    def holds(self, score: float) -> bool:
        """Whether this is a score of the scale."""
        return self.low <= score <= self.high

    def accepts(self, score: float) -> bool:
        return score >= self.accepted_from


SCALES: Mapping[str, Scale] = {
    "1-5": Scale(
        "1-5", 1, 5, 4,
        "a whole number from 1 to 5. 1: wrong or useless. 2: poor, with serious faults. 3: partly good, with faults that "
        "matter. 4: good, with small faults at most. 5: as good as it can be.",
    ),
    "0-1": Scale(
        "0-1", 0, 1, 0.5,
        "a number from 0 to 1, such as 0.7. 0: wrong or useless. 0.5: the least that is acceptable. 1: as good as it can be.",
    ),
}  # fmt: skip

_CRITERIA: Mapping[str, str] = {
    "nli": "The answer names the right label for how the hypothesis follows from the premise. A wrong label is useless.",
    "classification": "The answer names the label that fits the text best. A wrong label is useless.",
    "qa": (
        "The answer is right, answers this very question, and is borne out by the context where one is given. It says nothing "
        "else that is wrong. A short answer is as good as a sentence."
    ),
    "math": (
        "The final result is right: work it out yourself before you look at the answer's. Its steps, where it shows any, are "
        "sound. A wrong result is useless however good the steps look."
    ),
    "summarization": (
        "The summary says nothing that the text does not bear out, has its main points, leaves out what matters less, reads "
        "well, and keeps to the length that was asked for, where one was."
    ),
    "conversation": (
        "Each reply does what the user needs at that point, is right, follows the instructions given to the assistant, fits "
        "what was said before, has a fitting tone, and is no longer than it has to be."
    ),
    "text": (
        "The answer does what was asked, all of it, is right, keeps to the form that was asked for, reads well, and is no "
        "longer than it has to be."
    ),
}


@dataclass(frozen=True, slots=True)
class Rubric:
    """What makes an answer to a task good, and the scores for it. The task says what a row asks."""

    task: Task
    criteria: str
    scale: Scale


def make_rubric(task: Task, criteria: str | None = None, scale: str = "1-5") -> Rubric:
    """A rubric for a task: the user's own criteria, or those that Potstill has for each task."""
    return Rubric(task, (criteria or _CRITERIA[task.name]).strip(), SCALES[scale])
