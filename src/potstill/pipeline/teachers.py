"""The teachers of a job together: who of them answers what, what the report calls each, and how they compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.catalog import ResolvedModel
from potstill.evaluation.comparison import mean_figure
from potstill.generation import (
    All,
    Assignment,
    Best,
    Everyone,
    Judge,
    Mix,
    Panel,
    Route,
    Strategy,
    Tally,
    Teacher,
    Vote,
)
from potstill.generation.assigning import Whom
from potstill.inference.metered import Meter, Usage
from potstill.rows import Row
from potstill.spec import GenerationSpec, JobSpec, TeacherSpec, TrainingSpec
from potstill.tasks import Task

MOST_TOLD = 20  # tokens at a place of which OpenAI's endpoints tell the probability, and vLLM's unless told otherwise

Plan = Callable[[Sequence[Teacher]], Strategy]


def plan_of(job: JobSpec, task: Task, judge: Judge | None = None) -> Plan:
    """The strategy of a job, given its teachers in its order. judge: scores answers that no gold answer tells apart."""
    verify = job.curation.verify == "auto"
    return lambda teachers: panel_of(job.teachers, teachers, job.generation, task, verify=verify, judge=judge)


def panel_of(
    specs: Sequence[TeacherSpec], teachers: Sequence[Teacher], generation: GenerationSpec, task: Task, *, verify: bool = True,
    judge: Judge | None = None,
) -> Panel:
    """Who is asked, and what is kept. verify: whether answers that contradict the gold answer have no vote."""
    how = selection_of(generation)
    every = All(task, reasoned=generation.rationale != "discard")
    selection = Best(task, judge) if how == "best" else Vote(task, verify) if how == "vote" else every
    return Panel(assignment_of(specs, teachers, generation), selection, generation.samples)


def assignment_of(
    specs: Sequence[TeacherSpec], teachers: Sequence[Whom], generation: GenerationSpec
) -> Assignment[Whom]:
    """Who of the teachers answers which row."""
    if len(teachers) == 1 or generation.strategy in ("best", "vote"):
        return Everyone(teachers)
    if generation.strategy == "mix":
        return Mix(teachers, [spec.weight for spec in specs])
    pairs = list(zip(specs, teachers, strict=True))
    table = {value: teacher for spec, teacher in pairs for value in spec.routes or ()}
    return Route(str(generation.route_by), table, next((teacher for spec, teacher in pairs if spec.routes is None), None))


def selection_of(generation: GenerationSpec) -> str:
    """How answers to one row are chosen from: all, best or vote."""
    return generation.strategy if generation.strategy in ("best", "vote") else generation.select


def is_told_by_gold(row: Row, task: Task) -> bool:
    """Whether a right answer to the row can be told from a wrong one by its gold answer."""
    return bool(row.references) and task.verify(row.references[0], row) is not None


def labels_of(teachers: Sequence[ResolvedModel]) -> dict[str, ResolvedModel]:
    """What the report calls each teacher: the first is `teacher`, with which the student is compared, others `teacher:NAME`."""
    first, *others = teachers
    return {"teacher": first} | {f"teacher:{other.name}": other for other in others}


@dataclass(frozen=True)
class Books:
    """What is written down of each teacher, by its name, while it answers."""

    teachers: Sequence[ResolvedModel]
    tallies: Mapping[str, Tally]
    meters: Mapping[str, Meter]

    @classmethod
    def of(cls, teachers: Sequence[ResolvedModel]) -> Books:
        """Empty books."""
        return cls(teachers, {one.name: Tally() for one in teachers}, {one.name: Meter() for one in teachers})

    def figures(self, *, scored: bool = True) -> list[dict[str, Any]]:
        """How each teacher has answered the rows to learn from, kept or not, and what all its replies have taken.

        score: the task's main metric against the gold answers, None where there are none, or `scored` is false. requests and
        tokens: of every reply, those to test rows without a gold answer included. cost_usd: their price, None where it is not
        known.
        """
        return [self._figures(teacher, scored) for teacher in self.teachers]

    def _figures(self, teacher: ResolvedModel, scored: bool) -> dict[str, Any]:
        tally, usage = self.tallies[teacher.name], self.meters[teacher.name].usage
        return {
            "name": teacher.name,
            "asked": tally.asked,
            "answered": tally.answered,
            "score": mean_figure(tally.scores) if tally.scores and scored else None,
            "requests": usage.requests,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cost_usd": cost_usd(teacher, usage),
        }


def cost_usd(teacher: ResolvedModel, usage: Usage) -> float | None:
    """What replies have cost; None where price or tokens are not known."""
    price = teacher.price_paid
    if price is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return (usage.prompt_tokens * price.input + usage.completion_tokens * price.output) / 1e6


def with_kept(
    answered: Iterable[Mapping[str, Any]], kept: Iterable[Row], labels: Mapping[str, ResolvedModel]
) -> list[dict[str, Any]]:
    """The same with each teacher's label in the report; kept: its rows among those that training reads, share: of all."""
    whose = Counter(row.meta.get("teacher") for row in kept)
    label_of = {model.name: label for label, model in labels.items()}
    total = sum(whose.values())
    return [
        {"label": label_of[name], **entry, "kept": whose[name], "share": whose[name] / total if total else None}
        for entry in answered
        if (name := str(entry["name"])) in label_of
    ]


def told_logprobs(training: TrainingSpec, teacher: ResolvedModel) -> int:
    """Of how many of the likeliest tokens the teacher is to tell the probabilities with its answers; 0 where none are learnt.

    Vendors tell of 20 at most. A teacher whose weights are here reads its answers again, and tells of as many as it takes.
    """
    return min(training.signal.top, MOST_TOLD) if training.captures_signals and teacher.served else 0
