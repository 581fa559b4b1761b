"""Labels of a closed set: what an answer names, and the scores over many."""

from __future__ import annotations

import pytest

from potstill.metrics import accuracy, macro_f1, parse_label

NLI = ("entailment", "neutral", "contradiction")
CARDS = ("card_declined", "declined", "new", "new_card", "oos")
CHOICES = ("A", "B", "C", "D")


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("Entailment", NLI, "entailment"),
        (" **NEUTRAL**!\n", NLI, "neutral"),
        ("Entailment. Because it is not a contradiction and not neutral.", NLI, "entailment"),
        ("Contradiction - the dog cannot be neutral", NLI, "contradiction"),
        ("neutral because it is no contradiction", NLI, "neutral"),
        ("Label: neutral\nReason: there is no contradiction", NLI, "neutral"),
        ("Not a contradiction, it might be neutral. So the answer is entailment.", NLI, "entailment"),
        ('{"label": "contradiction"}', NLI, "contradiction"),
        ('```json\n{"reason": "entailment fails", "Label": "Neutral"}\n```', NLI, "neutral"),
        ('{"label": "neutral", "reason": "entailment would need', NLI, "neutral"),  # cut off by the token limit
        ("I would call this a contradiction of it", NLI, "contradiction"),
        ("entailment or neutral", NLI, None),
        ("It is not a contradiction", NLI, None),
        ("not neutral but contradiction", NLI, "contradiction"),
        ("the contradictions", NLI, None),  # whole words only
        ("unsure", NLI, None),
        ("", NLI, None),
        ("card declined", CARDS, "card_declined"),
        ("Card-Declined.", CARDS, "card_declined"),
        ("the intent of the user: my card declined today", CARDS, "card_declined"),
        ("it was declined", CARDS, "declined"),
        ("they want a new card sent", CARDS, "new_card"),
        ("This is not-entailment, clearly", ("entailment", "not_entailment"), "not_entailment"),
        ("(B) Paris is a city", CHOICES, "B"),
        ("The answer is C.", CHOICES, "C"),
        ("-1", ("-1", "0", "1"), "-1"),
        ("1", ("-1", "0", "1"), "1"),
        ("It is written in C++ here", ("C", "C++", "C#"), "C++"),
        ("Good!", ("good", "Good!"), "Good!"),  # apart by punctuation only: verbatim
        ("a-b", ("a b", "a_b"), None),
    ],
)
def test_the_label_an_answer_names(text: str, labels: tuple[str, ...], label: str | None) -> None:
    assert parse_label(text, labels) == label


def test_macro_f1_weighs_classes_alike() -> None:
    golds = ["a", "a", "a", "b"]
    predictions = ["a", "a", "b", "b"]
    # a: TP 2, FP 0, FN 1 -> 4/5; b: TP 1, FP 1, FN 0 -> 2/3; c never occurs and has no F1
    assert macro_f1(golds, predictions, ["a", "b", "c"]) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert accuracy(golds, predictions) == pytest.approx(3 / 4)


def test_an_unparsed_prediction_is_wrong_and_belongs_to_no_class() -> None:
    # a: TP 1, FN 1 -> 2/3; b: TP 1 -> 1
    assert macro_f1(["a", "a", "b"], ["a", None, "b"], ["a", "b"]) == pytest.approx((2 / 3 + 1) / 2)
    assert macro_f1(["a", "a", "b"], ["a", "z", "b"], ["a", "b"]) == pytest.approx((2 / 3 + 1) / 2)
    assert accuracy(["a", "a", "b"], ["a", None, "b"]) == pytest.approx(2 / 3)


def test_a_class_that_is_only_predicted_counts_as_missed() -> None:
    assert macro_f1(["a", "a"], ["a", "b"], ["a", "b"]) == pytest.approx((2 / 3 + 0) / 2)


def test_no_rows_and_rows_that_do_not_match() -> None:
    assert accuracy([], []) == 0.0
    assert macro_f1([], [], NLI) == 0.0
    with pytest.raises(ValueError, match="2 gold labels but 1 predictions"):
        accuracy(["a", "b"], ["a"])
