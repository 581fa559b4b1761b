"""Answered rows to the rows that training reads.

What goes in: generated rows of a split, and the held-out rows. What comes out: the kept rows, the teacher's turns in the form
that the student shall write, and every rejected row with the first rule that rejected it and the reason. What it costs: no
request; two passes over the rows, the first of which judges them and the second of
which writes them (`Curation`), and about 300 bytes a row in between. Rates are in `benchmarks/curation.py`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import numpy as np

from potstill.curation.duplicates import ExactDuplicate, NearDuplicate
from potstill.curation.overlap import Contaminated
from potstill.curation.personal_data import PersonalData
from potstill.curation.rules import ContradictsGold, CorpusRule, LowScore, Refused, Rule, Truncated, Unparsable
from potstill.curation.semantic import Embed, SemanticDuplicate
from potstill.curation.source import RowSource
from potstill.curation.spread import LengthOutlier, Unbalanced
from potstill.curation.text_rules import ForeignLanguage, Repetitive
from potstill.curation.words import Batch, in_batches
from potstill.rows import Message, Row
from potstill.spec import CurationSpec
from potstill.tasks import Task, get_task

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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says about a row; reason is None where it keeps it."""

    rule: str
    reason: str | None


def row_rules(spec: CurationSpec, task: Task) -> list[Rule]:
    """The rules of a job that look at one row, in the order in which they are asked."""
    rules: list[Rule] = [Refused(task), Truncated(task), Unparsable(task)]
    if spec.verify == "auto":
        rules.append(ContradictsGold(task))
    if spec.min_agreement is not None:
        rules.append(LowScore("low_agreement", "agreement", spec.min_agreement))
    if spec.min_judge_score is not None:
        rules.append(LowScore("low_judge_score", "judge_score", spec.min_judge_score))
    if spec.repetition == "auto":
        rules.append(Repetitive(task))
    return [*rules, PersonalData(spec.personal_data)]


def corpus_rules(
    spec: CurationSpec, task: Task, held_out: Sequence[Row], embed: Embed | None = None
) -> list[CorpusRule]:
    """The rules of a job that look at all rows, in the order in which they are asked, after the others."""
    rules: list[CorpusRule] = []
    if spec.language != "any":
        languages = [spec.language] if isinstance(spec.language, str) else spec.language
        rules.append(ForeignLanguage(task, None if spec.language == "auto" else languages))
    if spec.length == "auto":
        rules.append(LengthOutlier(task))
    if spec.decontaminate:
        rules.append(Contaminated(task, held_out, 8 if spec.decontaminate == "strict" else 13))
    if spec.deduplicate != "none":
        rules.append(ExactDuplicate(task))
    if spec.deduplicate == "near":
        rules.append(NearDuplicate(task))
    if spec.semantic is not None and embed is not None:
        rules.append(SemanticDuplicate(task, embed, spec.semantic.threshold))
    return rules


def rule_names() -> list[str]:
    """All rules, in the order in which they are asked."""
    spec = CurationSpec(min_agreement=0, min_judge_score=0)
    task = get_task("text")
    alone = [rule.name for rule in row_rules(spec, task)]
    return [*alone, *(rule.name for rule in corpus_rules(spec, task, [])), SemanticDuplicate.name, Unbalanced.name]


class Curation:
    """Judges the rows of one split, then says of each what becomes of it.

    Args:
        task: The task as all rows make it (`Task.with_rows`).
        held_out: Prepared rows that must not be learned from: validation and test for train, test for validation.
        embed: The embedding model that `spec.semantic` names; without it rows that mean the same are not looked for.
        watched: The id of a row of which to note what every rule says (`said`).
    """

    def __init__(
        self, spec: CurationSpec, task: Task, held_out: Sequence[Row], *, embed: Embed | None = None,
        watched: str | None = None,
    ) -> None:
        self._task, self._watched = task, watched
        self._row_rules, self._corpus_rules = row_rules(spec, task), corpus_rules(spec, task, held_out, embed)
        self._personal_data = next(rule for rule in self._row_rules if isinstance(rule, PersonalData))
        self._balance = Unbalanced(task, spec.balance.by, spec.balance.ratio) if spec.balance else None
        self._resembles = Contaminated(task, held_out, 8) if spec.decontaminate is True else None
        self._verdicts: dict[int, Verdict] = {}
        self._overlaps = 0
        self.said: list[Verdict] = []

    def judge(self, rows: RowSource, on_done: Callable[[int], None] = lambda done: None) -> None:
        """Go through all rows once, and read suspects again; `on_done` is told how many were read."""
        answered, watched = array("q"), -1
        lookers = [*self._corpus_rules, *(rule for rule in (self._resembles, self._balance) if rule is not None)]
        for first, batch in in_batches(iter(rows)):
            good: list[Row] = []
            indices: list[int] = []
            for index, row in enumerate(batch, first):
                if row.id == self._watched:
                    watched = index
                    self.said = [Verdict(rule.name, rule.reject(row)) for rule in self._row_rules]
                verdict = self._alone(row)
                if verdict is None:
                    good.append(row)
                    indices.append(index)
                else:
                    self._verdicts[index] = verdict
            if good:
                looked = Batch(good, np.array(indices, dtype=np.int64), self._task)
                for looker in lookers:
                    looker.observe(looked)
            answered.extend(indices)
            on_done(first + len(batch))
        self._compare(answered, rows, watched)

    def _alone(self, row: Row) -> Verdict | None:
        """The first rule on single rows that rejects a row."""
        for rule in self._row_rules:
            reason = rule.reject(row)
            if reason is not None:
                return Verdict(rule.name, reason)
        return None

    def _compare(self, answered: Sequence[int], rows: RowSource, watched: int) -> None:
        """Ask the rules on all rows about those that stand alone, in order."""
        for rule in self._corpus_rules:
            rule.settle(rows.__getitem__)
        kept = array("q")
        for index in answered:
            if index == watched:
                self.said += [Verdict(rule.name, rule.reject(index)) for rule in self._corpus_rules]
            for rule in self._corpus_rules:
                reason = rule.reject(index)
                if reason is not None:
                    self._verdicts[index] = Verdict(rule.name, reason)
                    break
            else:
                kept.append(index)
                for rule in self._corpus_rules:
                    rule.keep(index)
        if self._balance is not None:
            thinned = self._balance.thin(kept)
            self._verdicts |= {index: Verdict(self._balance.name, reason) for index, reason in thinned.items()}
            self.said += [Verdict(self._balance.name, thinned.get(watched))] if watched in kept else []
        if self._resembles is not None:
            self._resembles.settle(rows.__getitem__)
            self._overlaps = sum(self._resembles.reject(index) is not None for index in kept if index not in self._verdicts)

    def verdict(self, index: int) -> Verdict | None:
        """Why the row of that number is rejected; None where it is kept."""
        return self._verdicts.get(index)

    @property
    def rejected(self) -> list[tuple[int, Verdict]]:
        """The numbers of the rejected rows, in order, with the first rule that rejects each."""
        return sorted(self._verdicts.items(), key=itemgetter(0))

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each rule rejected."""
        return dict(Counter(verdict.rule for verdict in self._verdicts.values()))

    @property
    def noticed(self) -> dict[str, Any]:
        """What is no reason to reject a row, and worth to be known: kept rows that share 8 words in a row with a held-out one,
        and rows with each kind of personal data."""
        return {"shares_8_words": self._overlaps, "personal_data": dict(self._personal_data.counts)}

    def learnt(self, row: Row) -> Row:
        """A kept row as training reads it: the teacher's turns as the student shall write them."""
        return self._personal_data.treated(_as_target(row, self._task))


def curate(rows: Sequence[Row], *, split: str, spec: CurationSpec, task: Task, held_out: Sequence[Row]) -> Curated:
    """Keep or reject each row of a split that is in memory; the first rule that rejects a row is its reason.

    Args:
        rows: Rows as `potstill.generation` writes them, the teacher's turns last and their finish reasons in `meta`.
        task: The task as all rows make it (`Task.with_rows`).
        held_out: Prepared rows that must not be learned from: validation and test for train, test for validation.
    """
    curation = Curation(spec, task, held_out)
    curation.judge(rows)
    kept: list[Row] = []
    rejected: list[Rejection] = []
    for index, row in enumerate(rows):
        verdict = curation.verdict(index)
        if verdict is None:
            kept.append(curation.learnt(row))
        else:
            rejected.append(Rejection(row, split, verdict.rule, verdict.reason or ""))
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
