"""Diversity of the kept rows, as it is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from potstill.curation.diversity import SAMPLE, Diversity, self_bleu
from potstill.rows import Row
from potstill.tasks import Task

Make = Callable[..., Row]

TOPICS = ("invoices and payments", "broken parcels", "gloves and helmets", "opening hours")


def measured(task: Task, rows: list[Row], kept: Callable[[int], bool] = lambda number: True) -> dict[str, Any]:
    diversity = Diversity(task)
    for number, row in enumerate(rows):
        diversity.add(row, kept=kept(number))
    return diversity.figures()


def about(generated: Make, topics: int, count: int = 80) -> list[Row]:
    return [generated(f"What about {TOPICS[n % topics]}, number {n}?", f"Answer {n}", id=str(n)) for n in range(count)]


def test_rows_that_say_the_same_are_less_diverse(text: Task, generated: Make) -> None:
    same = measured(text, [generated("What is it like?", id=str(n)) for n in range(40)])["prompts"]
    varied = measured(text, about(generated, 4))["prompts"]
    assert same == {"distinct_1": pytest.approx(4 / 160), "distinct_2": pytest.approx(3 / 120), "self_bleu": 1.0}
    assert varied["distinct_2"] > same["distinct_2"]
    assert varied["self_bleu"] < 1


def test_a_topic_of_which_no_row_was_kept_is_no_longer_covered(text: Task, generated: Make) -> None:
    rows = about(generated, 4)
    whole, part = measured(text, rows), measured(text, rows, lambda number: number % 4 != 1)
    assert whole["cluster_coverage"] == 1.0
    assert part["cluster_coverage"] < 1.0
    assert part["cluster_evenness"] < whole["cluster_evenness"] <= 1.0
    assert (whole["sampled"], part["sampled"]) == (80, 60)


def test_the_figures_do_not_depend_on_the_order_of_the_rows(text: Task, generated: Make) -> None:
    rows = about(generated, 3, SAMPLE + 200)
    forward = measured(text, rows)
    assert forward["sampled"] == SAMPLE
    assert measured(text, list(reversed(rows))) == forward


def test_nothing_is_measured_where_nothing_is_there(text: Task, generated: Make) -> None:
    figures = measured(text, about(generated, 2), lambda number: False)
    assert (figures["sampled"], figures["prompts"]["distinct_1"], figures["cluster_coverage"]) == (0, None, None)
    assert self_bleu(["one text"]) is None
