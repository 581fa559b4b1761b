"""Scores of free text against values worked out by hand from the published formulas."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from potstill.metrics import (
    bleu,
    chrf,
    corpus_bleu,
    exact_match,
    length_ratio,
    normalise_answer,
    rouge_1,
    rouge_2,
    rouge_l,
    token_f1,
    within_length,
)

Score = Callable[[str, str | list[str]], float]
SCORES: list[Score] = [exact_match, token_f1, rouge_1, rouge_2, rouge_l, bleu, chrf]


@pytest.mark.parametrize("score", SCORES)
def test_every_score_runs_from_0_for_nothing_to_1_for_the_reference_itself(score: Score) -> None:
    reference = "The quick brown fox jumps over one lazy dog."
    assert score(reference, reference) == pytest.approx(1.0)
    assert score("", reference) == 0.0
    assert score(" \n", reference) == 0.0
    assert score("000", reference) == 0.0


@pytest.mark.parametrize("score", SCORES)
def test_the_best_of_several_references_counts(score: Score) -> None:
    wanted = "Sand dunes move with the wind"
    assert score(wanted, ["Rivers carve the rock", wanted]) == pytest.approx(1.0)


@pytest.mark.parametrize("score", SCORES)
def test_a_row_without_a_reference_is_refused(score: Score) -> None:
    with pytest.raises(ValueError, match="no reference"):
        score("an answer", [])


def test_squad_normalisation() -> None:
    assert normalise_answer("The  Norman-French,  an (old) A-list!") == "normanfrench old alist"
    assert exact_match("the Eiffel Tower.", "Eiffel tower") == 1.0
    assert exact_match("Eiffel", "Eiffel tower") == 0.0


def test_token_f1() -> None:
    # "cat sat" of "cat sat down": precision 2/2, recall 2/3
    assert token_f1("the cat sat", "a cat sat down") == pytest.approx(0.8)
    # a word counts as often as both sides have it: precision 1/3, recall 1/1
    assert token_f1("cat cat cat", "cat") == pytest.approx(0.5)


def test_rouge_on_lins_example() -> None:
    # Lin 2004, section 3: the stemmer makes "killed" and "kill" one word.
    reference = "police killed the gunman"
    assert rouge_l("police kill the gunman", reference) == pytest.approx(1.0)
    assert rouge_l("the gunman kill police", reference) == pytest.approx(2 / 4)
    assert rouge_2("the gunman kill police", reference) == pytest.approx(1 / 3)
    assert rouge_1("the gunman kill police", reference) == pytest.approx(1.0)


def test_rouge_reads_scripts_other_than_latin() -> None:
    assert rouge_l("кот сидит", "кот спит") == pytest.approx(1 / 2)
    assert rouge_l("今天天气很好", "今天天气不好") == pytest.approx(5 / 6)  # 5 of 6 characters in order


def test_bleu() -> None:
    # n-gram precisions 4/5, 3/4, 2/3, 1/2; no brevity penalty; their geometric mean
    expected = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu("a b c d f", "a b c d e") == pytest.approx(expected)
    assert corpus_bleu(["a b c d f"], ["a b c d e"]) == pytest.approx(expected)
    assert bleu("a longer sentence of seven words here", "a longer sentence of seven words here") <= 1.0
    assert bleu("two words", "two words") == pytest.approx(1.0)  # effective order: no 4-gram to miss


def test_corpus_bleu_pools_counts_over_rows_with_different_numbers_of_references() -> None:
    predictions = ["a b c d f", "p q r s t u"]
    # pooled: 4+6 of 5+6, 3+5 of 4+5, 2+4 of 3+4, 1+3 of 2+3
    expected = (10 / 11 * 8 / 9 * 6 / 7 * 4 / 5) ** 0.25
    assert corpus_bleu(predictions, ["a b c d e", ["z", "p q r s t u"]]) == pytest.approx(expected)
    assert corpus_bleu(["", ""], ["a b", "c d"]) == 0.0
    assert corpus_bleu([], []) == 0.0
    with pytest.raises(ValueError, match="2 predictions but 1"):
        corpus_bleu(predictions, ["a"])


def test_chrf() -> None:
    # "ab" against "abc": mean precision 1; mean recall over 1- and 2-grams (2/3 + 1/2) / 2; F with beta 2
    precision, recall = 1.0, 7 / 12
    assert chrf("ab", "abc") == pytest.approx(5 * precision * recall / (4 * precision + recall))


def test_lengths() -> None:
    assert length_ratio("one two three", "one two") == pytest.approx(1.5)
    assert length_ratio("one two three", ["one", "one two three four"]) == pytest.approx(3 / 4)
    assert length_ratio("", "one two") == 0.0
    assert length_ratio("one", "") == 0.0
    assert [within_length(text, 2) for text in ("", "one", "one two", "one two three")] == [0.0, 1.0, 1.0, 0.0]
