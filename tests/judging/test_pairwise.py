"""Two answers compared in both orders: what counts as a win, and what the order alone decided."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from judging.judges import answers_shown, judge, rows_of
from loopback import Messages
from potstill.judging import Comparison, compare_answers, make_rubric, position_bias, tally
from potstill.rows import content_hash
from potstill.tasks import get_task

RUBRIC = make_rubric(get_task("text"))
PLANTED = 0.3


def worth(answer: str) -> float:
    """How good an answer is: a number that only its text decides, from 0 to 1."""
    return int(content_hash(answer)[:8], 16) / 2**32


def biased_judge(share: float) -> Callable[[Messages], str]:
    """Takes the first place in this share of the rows whatever stands there, in both orders; else the better answer."""

    def answer(messages: Messages) -> str:
        first, second = answers_shown(messages)
        (number,) = re.findall(r"Question (\d+)\?", messages[-1]["content"])
        if int(number) % 10 < share * 10:
            return '{"reason": "the first", "winner": "A"}'
        return f'{{"reason": "the better", "winner": "{"A" if worth(first) > worth(second) else "B"}"}}'

    return answer


async def test_asking_in_both_orders_removes_a_position_bias_and_measures_it(tmp_path: Path) -> None:
    draw = random.Random(7)
    rows = rows_of(400)
    ones, others = ([f"{model} says {draw.random()}" for _ in rows] for model in ("one", "other"))
    async with judge(tmp_path, biased_judge(PLANTED)) as (client, server):
        comparisons = await compare_answers(client, rows, ones, others, RUBRIC)
    assert len(server.requests) == 800
    # Two models whose answers are equally good: who stands first seems to win where one order alone is asked.
    one_order = sum(entry.forward == "first" for entry in comparisons) / 400
    assert one_order == pytest.approx(PLANTED + (1 - PLANTED) / 2, abs=0.05)
    result = tally(comparisons)
    assert result.win_rate is not None
    assert result.win_rate.ci95[0] < 0.5 < result.win_rate.ci95[1]
    assert result.win_rate.value == pytest.approx(0.5, abs=0.05)
    bias = position_bias(comparisons)
    assert bias is not None
    assert bias.towards_first.ci95[0] <= PLANTED <= bias.towards_first.ci95[1]
    assert (bias.towards_second.value, bias.changed) == (0, bias.towards_first)
    assert bias.changed.n == 400
    assert result.ties == round(bias.changed.value * 400)


async def test_a_judge_without_bias_shows_none(tmp_path: Path) -> None:
    rows = rows_of(30)
    ones, others = ([f"{model} {number}" for number in range(30)] for model in ("one", "other"))
    async with judge(tmp_path, biased_judge(0.0)) as (client, _):
        comparisons = await compare_answers(client, rows, ones, others, RUBRIC)
    bias = position_bias(comparisons)
    assert bias is not None
    assert (bias.changed.value, bias.changed.ci95[0]) == (0, 0)
    better = [worth(one) > worth(other) for one, other in zip(ones, others, strict=True)]
    assert [entry.outcome for entry in comparisons] == ["win" if won else "loss" for won in better]


@pytest.mark.parametrize(
    ("forward", "swapped", "outcome", "leaning"),
    [
        ("first", "second", "win", 0),
        ("second", "first", "loss", 0),
        ("tie", "tie", "tie", 0),
        ("first", "first", "tie", 1),
        ("second", "second", "tie", -1),
        ("first", "tie", "tie", 1),
        ("tie", "second", "tie", -1),
        (None, "first", None, None),
        ("first", None, None, None),
    ],
)
def test_a_verdict_counts_where_both_orders_agree(
    forward: str | None, swapped: str | None, outcome: str | None, leaning: int | None
) -> None:
    comparison = Comparison(forward, swapped)  # type: ignore[arg-type]
    assert (comparison.outcome, comparison.leaning) == (outcome, leaning)


async def test_what_needs_no_judge_is_not_asked_and_says_nothing_of_its_bias(tmp_path: Path) -> None:
    ones, others = ["same", "here", "", "", "one"], ["same ", "", "there", " ", "other"]
    async with judge(tmp_path, lambda messages: "no idea") as (client, server):
        comparisons = await compare_answers(client, rows_of(5), ones, others, RUBRIC)
    assert [entry.outcome for entry in comparisons] == ["tie", "win", "loss", "tie", None]
    assert len(server.requests) == 2
    assert "states no winner" in str(comparisons[-1].failure)
    assert position_bias(comparisons) is None
    result = tally(comparisons)
    assert (result.wins, result.ties, result.losses, result.unreadable) == (1, 2, 1, 1)


def test_nothing_readable_gives_no_rate() -> None:
    assert tally([Comparison(None, "first", "why")]).win_rate is None
