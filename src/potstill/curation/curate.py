"""Answered rows to the rows that training reads.

What goes in: generated rows of the train and validation splits, and the held-out rows. What comes out: the kept rows, the
teacher's turns in the form that the student shall write, and every rejected row with the first rule that rejected it and the
reason. What it costs: no request; 10,000 rows of 150 words take about ten seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from potstill.curation.overlap import Contaminated, ExactDuplicate, NearDuplicate
from potstill.curation.rules import ContradictsGold, Refused, Rule, Truncated, Unparsable
from potstill.rows import Message, Row
from potstill.spec import CurationSpec
from potstill.tasks import Task

MIN_KEPT_ROWS = 16


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that training does not read."""

    row: Row
    split: str
    rule: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return {**self.row.as_dict(), "split": self.split, "rule": self.rule, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Curated:
    """The kept rows of one split, and the rejected ones."""

    kept: list[Row]
    rejected: list[Rejection]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each rule rejected."""
        return dict(Counter(rejection.rule for rejection in self.rejected))


def rules_for(spec: CurationSpec, task: Task, rows: Sequence[Row], held_out: Sequence[Row]) -> list[Rule]:
    """The rules of a job, in the order in which they are asked."""
    rules: list[Rule] = [Refused(task), Truncated(task), Unparsable(task)]
    if spec.verify == "auto":
        rules.append(ContradictsGold(task))
    if spec.decontaminate:
        rules.append(Contaminated(task, held_out, rows))
    if spec.deduplicate != "none":
        rules.append(ExactDuplicate(task))
    if spec.deduplicate == "near":
        rules.append(NearDuplicate(task))
    return rules


def curate(rows: Sequence[Row], *, split: str, spec: CurationSpec, task: Task, held_out: Sequence[Row]) -> Curated:
    """Keep or reject each row of a split; the first rule that rejects a row is its reason.

    Args:
        rows: Rows as `potstill.generation` writes them, the teacher's turns last and their finish reasons in `meta`.
        task: The task as all rows make it (`Task.with_rows`).
        held_out: Prepared rows that must not be learned from: validation and test for train, test for validation.
    """
    rules = rules_for(spec, task, rows, held_out)
    kept: list[Row] = []
    rejected: list[Rejection] = []
    for row in rows:
        for rule in rules:
            reason = rule.reject(row)
            if reason is not None:
                rejected.append(Rejection(row, split, rule.name, reason))
                break
        else:
            kept.append(_as_target(row, task))
    return Curated(kept, rejected)


def _as_target(row: Row, task: Task) -> Row:
    """The row with the teacher's turns in the form that the student shall write."""
    remaining = task.turns(row)
    messages: list[Message] = []
    for message in reversed(row.messages):
        if message.role == "assistant" and remaining > 0:
            remaining -= 1
            message = replace(message, content=task.target(message.content, row))
        messages.append(message)
    return replace(row, messages=tuple(reversed(messages)))
