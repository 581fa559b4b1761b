"""Questions: the letter of a choice, a short answer, and when an answer agrees with the gold one."""

from __future__ import annotations

import pytest

from potstill.rows import Message, Row
from potstill.tasks import get_task

CHOICES = ["a mixture of gases", "Paris", "iron", "it depends"]
TASK = get_task("qa")


def choice_row(choices: list[str] | None = None, **fields: object) -> Row:
    return TASK.row({"question": "Which one?", "choices": choices or CHOICES, "answer": "B", **fields})


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B) Paris", "B"),
        ("**B**", "B"),
        ("Answer: B", "B"),
        ("The correct answer is (C).", "C"),
        ("The answer is B because Paris is a city.", "B"),
        ("B is correct.", "B"),
        ("Option C", "C"),
        ('{"answer": "C"}', "C"),
        ("I think it is C.", "C"),
        ("Let me see. Iron is a metal and Paris a city.\nThe answer is C.", "C"),
        ("Paris", "B"),
        ("paris.", "B"),
        ("A mixture of gases", "A"),
        ("It is a mixture of gases.", "A"),
        ("It depends", "D"),
        ("a mixture of many things", None),
        ("B and C", None),
        ("A and C", None),
        ("Iron or Paris", None),
        ("E", None),
        ("", None),
    ],
)
def test_the_letter_of_an_answer(text: str, letter: str | None) -> None:
    row = choice_row()
    assert TASK.parse(text, row).value == letter
    assert TASK.verify(text, row) is (letter == "B")
    if letter:
        assert TASK.target(text, row) == letter


def test_a_letter_wins_over_a_choice_that_is_one_letter_itself() -> None:
    assert TASK.parse("D", choice_row(["C", "D", "E", "K"])).value == "D"


def test_choices_are_found_after_generation_too_and_lines_of_the_context_are_none() -> None:
    row = choice_row(context="A. Smith wrote it.\nE. Jones read it.")
    assert TASK.parse("E", row).value is None
    assert TASK.parse("Smith wrote it", row).value is None
    answered = Row(row.id, (*row.messages, Message("assistant", "Paris")), row.reference)
    assert TASK.verify("Paris", answered) is True
    assert TASK.verify("iron", answered) is False


def test_the_letters_are_a_closed_set_of_answers_and_free_answers_have_none() -> None:
    assert TASK.choices(choice_row()) == ("A", "B", "C", "D")
    assert TASK.choices(TASK.row({"question": "Who?"})) == ()


def test_choices_stay_on_one_line_each() -> None:
    row = choice_row(["two\nlines", "one"])
    assert row.messages[-1].content.endswith("\nA. two lines\nB. one")


def test_accuracy_is_the_main_metric_only_where_all_rows_have_choices() -> None:
    row = choice_row()
    task = TASK.with_rows([row])
    assert task.main_metric == "accuracy"
    assert task.score(["(B) Paris", "C", "who knows"], [row] * 3).per_row == {"accuracy": [1.0, 0.0, 0.0]}
    mixed = TASK.with_rows([row, TASK.row({"question": "Who?", "answer": "Ann"})])
    assert mixed.main_metric == "token_f1"


def test_an_answer_given_as_the_letter_a_is_scored_as_a_letter() -> None:
    row = choice_row(answer="A")
    score = TASK.score(["A", "B"], [row, row]).per_row
    assert score == {"token_f1": [1.0, 0.0], "accuracy": [1.0, 0.0]}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Broncos", True),
        ("The Denver Broncos.", True),
        ("The Denver Broncos won the game.", True),
        ("Denver", True),
        ("Panthers", False),
        ("the", False),
        ("", False),
    ],
)
def test_a_short_answer_agrees_with_the_gold_one_in_other_words(text: str, verdict: bool) -> None:
    row = TASK.row({"question": "Who won?", "answers": ["Denver Broncos"]})
    assert TASK.verify(text, row) is verdict


def test_a_long_gold_answer_can_be_told_in_too_many_ways_to_refute_one() -> None:
    gold = "because the sun heats the ground, which heats the air, which then rises and cools"
    assert TASK.verify("The ground is warm.", TASK.row({"question": "Why?", "answer": gold})) is None


def test_only_the_first_line_of_a_free_answer_counts() -> None:
    row = TASK.row({"question": "Who won?", "answer": "Denver Broncos"})
    text = "\n Denver Broncos\n\nThey beat the Panthers."
    assert TASK.parse(text, row).value == "Denver Broncos"
    assert TASK.target(text, row) == "Denver Broncos"
    assert TASK.score([text], [row]).per_row == {"token_f1": [1.0], "accuracy": [1.0]}


def test_the_best_of_several_gold_answers_counts() -> None:
    row = TASK.row({"question": "Who won?", "answers": ["the Denver team", "Broncos"]})
    assert TASK.score(["Broncos"], [row]).per_row["token_f1"] == [1.0]
