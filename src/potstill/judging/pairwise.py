"""Which of two answers is better, asked in both orders.

What goes in: rows, two answers to each, a rubric, and a client around the judge. What comes out: one comparison a row; a
verdict counts only where both orders agree, anything else is a tie, so a judge that prefers a place cannot favour a model. How
often the order alone decided is the position bias (Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot
Arena"). What it costs: two requests a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from potstill.inference.client import Client
from potstill.judging.asking import Heard, ask_each
from potstill.judging.estimates import Estimate, share
from potstill.judging.prompts import WINNER_SCHEMA, compare_messages, is_whole, texts_equal
from potstill.judging.rubric import Rubric
from potstill.judging.verdicts import Place, read_winner
from potstill.metrics import bootstrap_ci
from potstill.rows import Row
from potstill.tasks.base import Prediction

Outcome = Literal["win", "tie", "loss"]
_OTHER_PLACE: dict[Place, Place] = {"first": "second", "second": "first", "tie": "tie"}
_PREFERENCE: dict[Place, int] = {"first": 1, "tie": 0, "second": -1}
_POINTS: dict[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a judge says of one answer (`one`) and another.

    forward: the better place where `one` stands first. swapped: the better place where it stands second. Either is None where
    no verdict could be read, and then `failure` says why. asked: False where no judge was needed: the answers are the same, or
    one of them is missing.
    """

    forward: Place | None
    swapped: Place | None
    failure: str | None = None
    asked: bool = True

    @property
    def outcome(self) -> Outcome | None:
        """Whether `one` won, where both orders say so; None where one of the verdicts cannot be read."""
        if self.forward is None or self.swapped is None:
            return None
        if self.forward != _OTHER_PLACE[self.swapped]:
            return "tie"
        return {"first": "win", "second": "loss", "tie": "tie"}[self.forward]  # type: ignore[return-value]

    @property
    def leaning(self) -> int | None:
        """Towards which place the verdicts lean: 1 the first, -1 the second, 0 where the order changed nothing."""
        if self.forward is None or self.swapped is None:
            return None
        total = _PREFERENCE[self.forward] + _PREFERENCE[self.swapped]
        return (total > 0) - (total < 0)


@dataclass(frozen=True, slots=True)
class Tally:
    """How one model fares against another. win_rate: wins, and half of the ties; None where no comparison could be read."""

    wins: int
    ties: int
    losses: int
    unreadable: int
    win_rate: Estimate | None


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How often a judge's verdict changed with the order, as shares of the pairs that it was asked about in both.

    towards_first: the share in which it changed towards the answer that stood first (A in both orders, or A in one and a tie in
    the other); towards_second alike. The two add up to `changed`.
    """

    changed: Estimate
    towards_first: Estimate
    towards_second: Estimate


async def compare_answers(
    client: Client,
    rows: Sequence[Row],
    ones: Sequence[Prediction],
    others: Sequence[Prediction],
    rubric: Rubric,
    *,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[Comparison]:
    """One comparison a row, in order. Answers that are the same tie unasked, and an answer beats none.

    Raises:
        EndpointError: the judge's endpoint refuses every request or does not answer at all.
    """
    triples = list(zip(rows, ones, others, strict=True))
    settled = [_without_judge(one, other) for _, one, other in triples]
    open_places = [place for place, known in enumerate(settled) if known is None]
    questions = []
    for place in open_places:
        row, one, other = triples[place]
        questions += [compare_messages(row, one, other, rubric), compare_messages(row, other, one, rubric)]
    heard = await ask_each(client, questions, WINNER_SCHEMA, on_done)
    judged = {place: _comparison(*heard[2 * number : 2 * number + 2]) for number, place in enumerate(open_places)}
    return [known or judged[place] for place, known in enumerate(settled)]


def _without_judge(one: Prediction, other: Prediction) -> Comparison | None:
    whole, other_whole = is_whole(one), is_whole(other)
    if texts_equal(one, other) or not (whole or other_whole):
        return Comparison("tie", "tie", asked=False)
    if whole and other_whole:
        return None
    return Comparison("first", "second", asked=False) if whole else Comparison("second", "first", asked=False)


def _comparison(forward: Heard, swapped: Heard) -> Comparison:
    places: list[Place | None] = []
    failures: list[str | None] = []
    for heard in (forward, swapped):
        verdict = read_winner(heard.text) if heard.text is not None else None
        places.append(verdict.value if verdict else None)
        failures.append(verdict.unread if verdict else heard.failure)
    return Comparison(places[0], places[1], failures[0] or failures[1])


def tally(comparisons: Sequence[Comparison]) -> Tally:
    """Wins, ties and losses of the answers that were `ones`."""
    outcomes = [comparison.outcome for comparison in comparisons if comparison.outcome is not None]
    counts = Counter(outcomes)
    unreadable = len(comparisons) - len(outcomes)
    return Tally(counts["win"], counts["tie"], counts["loss"], unreadable, _win_rate(outcomes) if outcomes else None)


def _win_rate(outcomes: Sequence[Outcome]) -> Estimate:
    points = [_POINTS[outcome] for outcome in outcomes]
    if 0.5 not in points:
        return share(outcomes.count("win"), len(outcomes))
    return Estimate(sum(points) / len(points), bootstrap_ci(points), len(points))


def position_bias(comparisons: Sequence[Comparison]) -> PositionBias | None:
    """What the order alone decided; None where no pair was judged in both orders."""
    leanings = [
        comparison.leaning for comparison in comparisons if comparison.asked and comparison.leaning is not None
    ]
    n = len(leanings)
    if not n:
        return None
    first, second = leanings.count(1), leanings.count(-1)
    return PositionBias(share(first + second, n), share(first, n), share(second, n))
