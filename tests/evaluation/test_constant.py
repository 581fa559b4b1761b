"""The best constant answer."""

from __future__ import annotations

import random

import pytest

from potstill.evaluation.constant import best_constant
from potstill.metrics import rouge_l

WORDS = ["your", "order", "has", "been", "shipped", "will", "arrive", "monday", "please", "reset", "the", "password"]


def brute_force(answers: list[str]) -> float:
    """The highest mean ROUGE-L that any answer has to all."""
    return max(sum(rouge_l(a, b) for b in answers) for a in answers)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_answer_closest_to_the_others_by_rouge_l_is_chosen(seed: int) -> None:
    draw = random.Random(seed)
    answers = [" ".join(draw.choices(WORDS, k=draw.randint(3, 14))) for _ in range(40)]
    chosen = best_constant(answers, "rouge_l")
    assert chosen in answers
    assert sum(rouge_l(chosen, other) for other in answers) == pytest.approx(brute_force(answers))


def test_word_order_counts() -> None:
    """All share their words; each of the others has one pair swapped, so only the first is one swap from all."""
    answers = ["a b c d f e", "a b c d e f", "a b c e d f", "b a c d e f"]
    assert best_constant(answers, "rouge_l") == "a b c d e f"


def test_the_most_frequent_label_is_chosen() -> None:
    assert best_constant(["neutral", "entailment", "neutral ", "contradiction"], "accuracy") == "neutral"


def test_the_choice_among_many_answers_is_always_the_same() -> None:
    draw = random.Random(0)
    answers = [" ".join(draw.choices(WORDS, k=8)) for _ in range(300)]
    assert best_constant(answers, "rouge_l") == best_constant(answers, "rouge_l")


def test_no_answer_gives_no_constant() -> None:
    assert best_constant(["", "  "], "rouge_l") is None
