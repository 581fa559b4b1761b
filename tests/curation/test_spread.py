"""Answers of unheard-of length, and groups that outnumber the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from potstill.curation.spread import LengthOutlier, Unbalanced
from potstill.curation.words import Batch
from potstill.rows import Row
from potstill.tasks import Task, get_task

Make = Callable[..., Row]
Said = Callable[..., list[str | None]]


def answers(generated: Make, lengths: Sequence[int]) -> list[Row]:
    return [generated(f"Question {n}", "x" * length, id=str(n)) for n, length in enumerate(lengths)]


def test_answers_far_from_the_others_are_rejected_at_both_ends(text: Task, generated: Make, said: Said) -> None:
    rows = answers(generated, [*(100 + n for n in range(60)), 3, 9000])
    rule = LengthOutlier(text)
    assert rule.name == "length_outlier"
    reasons = said(rule, rows, text)
    assert reasons[:60] == [None] * 60
    assert reasons[60] == "the answer is far shorter than others: 3 characters, 129 are usual"
    assert reasons[61] == "the answer is far longer than others: 9,000 characters, 129 are usual"


def test_where_lengths_differ_anyway_only_a_greater_difference_counts(text: Task, generated: Make, said: Said) -> None:
    usual = [int(20 * 1.1**n) for n in range(60)]  # 20 to 5,500 characters
    assert said(LengthOutlier(text), answers(generated, [*usual, 3, 9000]), text) == [None] * 62


def test_few_rows_and_labels_have_no_usual_length(text: Task, generated: Make, said: Said) -> None:
    assert said(LengthOutlier(text), answers(generated, [100] * 40 + [9000]), text)[-1] is None
    nli = get_task("nli")
    assert said(LengthOutlier(nli), answers(generated, [100] * 60 + [9000]), nli)[-1] is None


def thinned(rows: Sequence[Row], task: Task, by: str, ratio: float, kept: Sequence[int] | None = None) -> set[str]:
    """The ids of the rows that are too many."""
    rule = Unbalanced(task, by, ratio)
    rule.observe(Batch(rows, np.arange(len(rows)), task))
    return {rows[index].id for index in rule.thin(range(len(rows)) if kept is None else kept)}


def labelled(generated: Make, counts: dict[str, int]) -> list[Row]:
    return [generated(f"{label} {n}", label, id=f"{label} {n}") for label, count in counts.items() for n in range(count)]


def test_no_label_has_more_rows_than_the_ratio_allows(generated: Make) -> None:
    rows = labelled(generated, {"entailment": 100, "neutral": 25, "contradiction": 10})
    gone = thinned(rows, get_task("nli"), "label", 2.0)
    assert Counter(id.split()[0] for id in gone) == {"entailment": 80, "neutral": 5}


def test_a_label_with_hardly_a_row_is_no_measure(generated: Make) -> None:
    rows = labelled(generated, {"entailment": 30, "neutral": 10, "contradiction": 2})
    assert len(thinned(rows, get_task("nli"), "label", 1.0)) == 20


def test_rows_that_other_rules_reject_are_not_counted(generated: Make) -> None:
    rows = labelled(generated, {"entailment": 30, "neutral": 30})
    assert thinned(rows, get_task("nli"), "label", 1.0, kept=range(40)) <= {row.id for row in rows[:30]}
    assert len(thinned(rows, get_task("nli"), "label", 1.0, kept=range(40))) == 20


def test_any_field_makes_groups_and_rows_without_it_stay(text: Task, generated: Make) -> None:
    rows = [row.with_meta(topic="a" if n < 40 else "b") for n, row in enumerate(answers(generated, [10] * 50))]
    assert len(thinned([*rows, *answers(generated, [10] * 90)], text, "topic", 2.0)) == 20


def test_a_row_that_is_added_moves_few_others(generated: Make) -> None:
    task, rows = get_task("nli"), labelled(generated, {"entailment": 200, "neutral": 50})
    before = thinned(rows, task, "label", 2.0)
    more = [*labelled(generated, {"entailment": 220, "neutral": 50})[195:220], *rows]
    assert before < thinned(more, task, "label", 2.0) | {"-"}
    assert thinned(list(reversed(rows)), task, "label", 2.0) == before


@pytest.mark.parametrize("label", ["entailment", "It is entailment."])
def test_a_label_is_what_the_answer_means(generated: Make, label: str) -> None:
    rows = [*labelled(generated, {"neutral": 10}), *(generated(f"q {n}", label, id=f"e {n}") for n in range(15))]
    assert len(thinned(rows, get_task("nli"), "label", 1.0)) == 5
