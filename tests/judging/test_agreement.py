"""How a judge agrees with a verifier."""

from __future__ import annotations

import random

import pytest

from potstill.judging import agreement
from potstill.judging.agreement import cohens_kappa


def test_kappa_is_that_of_the_textbook() -> None:
    # 50 proposals, two readers: both yes 20, only the first 5, only the second 10, both no 15. Observed 0.7, by chance 0.5.
    assert cohens_kappa(20, 5, 10, 15) == pytest.approx(0.4)
    assert cohens_kappa(10, 0, 0, 10) == 1
    assert cohens_kappa(0, 10, 10, 0) == -1
    assert cohens_kappa(10, 0, 0, 0) is None


def test_a_judge_that_errs_is_found_out_with_its_errors() -> None:
    draw = random.Random(3)
    truth = [draw.random() < 0.5 for _ in range(400)]
    judged = [right if draw.random() < 0.8 else not right for right in truth]
    found = agreement([[pair] for pair in zip(judged, truth, strict=True)])
    assert found is not None
    agreed = sum(a == b for a, b in zip(judged, truth, strict=True))
    assert (found.accuracy.value, found.accuracy.n) == (agreed / 400, 400)
    assert found.accuracy.ci95[0] < 0.8 < found.accuracy.ci95[1]
    assert found.kappa is not None
    assert found.kappa.ci95[0] < 0.6 < found.kappa.ci95[1]
    assert found.wrongly_accepted + found.wrongly_rejected == 400 - agreed


def test_a_judge_that_accepts_all_agrees_by_chance_alone() -> None:
    found = agreement([[(True, number % 4 > 0)] for number in range(100)])
    assert found is not None
    assert (found.accuracy.value, found.wrongly_accepted, found.wrongly_rejected) == (0.75, 25, 0)
    assert found.kappa is not None
    assert found.kappa.value == 0


def test_answers_to_one_row_are_no_independent_draws() -> None:
    rows = [[(number % 2 == 0, True)] for number in range(60)]
    once, thrice = agreement(rows), agreement([pairs * 3 for pairs in rows])
    assert once is not None
    assert thrice is not None
    assert thrice.accuracy.n == 180
    assert thrice.accuracy.ci95 == pytest.approx(once.accuracy.ci95)


def test_full_agreement_keeps_an_open_interval() -> None:
    found = agreement([[(True, True)], [(False, False)], [(True, True)]])
    assert found is not None
    assert found.accuracy.ci95[0] < 0.5
    assert found.kappa is not None
    assert found.kappa.value == 1


def test_without_answers_that_both_spoke_about_there_is_none() -> None:
    assert agreement([[], []]) is None
