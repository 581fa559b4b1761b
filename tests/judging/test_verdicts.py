"""Verdicts in all the forms that judges write them, and those that are none."""

from __future__ import annotations

import pytest

from potstill.judging.rubric import SCALES
from potstill.judging.verdicts import read_score, read_winner


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"reason": "short and right", "score": 4}', 4),
        ('```json\n{"reason": "fine", "score": "4/5"}\n```', 4),
        ('Here it is: {"reason": "it says \\"5\\"", "Score": 2}', 2),
        ('{"reason": "a brace } and a score: 5 inside", "score": 1}', 1),
        ('{"reason": "broken "quotes" in it", "score": 3', 3),
        ('{"score": 2, "reason": "first try"}\n{"score": 4, "reason": "on second thoughts"}', 4),
        ("<think>Perhaps score: 2?</think>\nThe score is 4.", 4),
        ("It is right but long.\n\n**Score: 4/5**", 4),
        ("Rating: [[3]]", 3),
        ("I like it.\n5", 5),
        ("4 out of 5", 4),
        ('{"score": 4.5}', 4.5),
    ],
)
def test_a_score_is_read(text: str, score: float) -> None:
    verdict = read_score(text, SCALES["1-5"])
    assert (verdict.value, verdict.unread) == (score, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is quite good.",
        '{"reason": "good", "score": 7}',
        '{"reason": "good", "score": true}',
        '{"reason": "good", "score": "high"}',
        '{"reason": "I would say score: 4", "score": null}',
        "Score: 8/10",
        "Score: 4/10",
        "The score goes from 1 to 5.",
        "score: 1 to 5",
        "Score: -3",
        "Paris has 2102650 people.",
    ],
)
def test_what_states_no_score_of_the_scale_is_unreadable(text: str) -> None:
    verdict = read_score(text, SCALES["1-5"])
    assert verdict.value is None
    assert verdict.unread


def test_the_other_scale_has_shares() -> None:
    scale = SCALES["0-1"]
    assert [read_score(f'{{"score": {number}}}', scale).value for number in (0, 0.7, 1)] == [0, 0.7, 1]
    assert read_score('{"score": 4}', scale).value is None
    assert [scale.accepts(score) for score in (0.4, 0.5, 1)] == [False, True, True]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"reason": "A is wrong", "winner": "B"}', "second"),
        ('{"reason": "both fine", "winner": "tie"}', "tie"),
        ('{"winner": "Answer A", "reason": "clear"', "first"),
        ("A is longer. My verdict: **B**", "second"),
        ("Both err.\n\nTie", "tie"),
        ("[[A]]", "first"),
        ("The better answer is A", "first"),
        ("Answer B is clearly better because it cites a source.", "second"),
        ("Winner: A? No, on reflection:\nWinner: B", "second"),
    ],
)
def test_a_winner_is_read(text: str, place: str) -> None:
    assert read_winner(text).value == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A better answer would cite a source.",
        "Answer A is worse.",
        "The better answer is a short one.",
        '{"reason": "hard to say", "winner": "C"}',
        '{"reason": "winner: A", "winner": null}',
        "It depends.",
    ],
)
def test_what_names_no_winner_is_unreadable(text: str) -> None:
    verdict = read_winner(text)
    assert verdict.value is None
    assert verdict.unread


def test_the_reason_is_kept() -> None:
    assert read_score('{"reason": " too long ", "score": 2}', SCALES["1-5"]).reason == "too long"
    assert read_winner("B cites its source.\nWinner: B").reason == "B cites its source.\nWinner: B"
