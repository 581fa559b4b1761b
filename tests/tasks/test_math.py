"""The final number of a solution, in every way in which models write it."""

from __future__ import annotations

import pytest

from potstill.tasks import get_task

TASK = get_task("math")


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("First 2+2=4.\n#### 4", "4"),
        ("2 apples and 2 more.\nA: 4", "4"),
        ("So $x = \\boxed{4}$, having used 3 steps.", "4"),
        ("She has 7 and gives away 3, so 4 are left", "4"),
        ("The answer is $1,234.50.", "1234.5"),
        ("#### 1,000,000", "1000000"),
        ("\\boxed{\\frac{3}{4}}", "0.75"),
        ("Half of it: 1/2", "0.5"),
        ("The answer is 20%", "0.2"),
        ("The answer is 20 percent", "20"),
        ("#### -5", "-5"),
        ("**Answer:** 42 apples", "42"),
        ("The total is 12.00 dollars", "12"),
        ("#### 4", "Two and two are <<2+2=4>>4.\n#### 4"),
    ],
)
def test_a_right_answer_is_recognised(text: str, gold: str) -> None:
    row = TASK.row({"question": "How many?", "answer": gold})
    assert TASK.verify(text, row) is True
    assert TASK.score([text], [row]).per_row == {"accuracy": [1.0], "parsed": [1.0]}


@pytest.mark.parametrize("text", ["#### 5", "\\boxed{40}", "4, no, wait: the answer is 14", "0.4", "4%"])
def test_a_wrong_number_is_refuted(text: str) -> None:
    row = TASK.row({"question": "How many?", "answer": "40000"})
    assert TASK.verify(text, row) is False


def test_an_answer_without_a_number_is_unparsed_and_wrong() -> None:
    row = TASK.row({"question": "How many?", "answer": "4"})
    assert TASK.parse("I do not know.", row).reason == "it has no final number"
    assert TASK.verify("I do not know.", row) is False
    assert TASK.score(["I do not know."], [row]).per_row == {"accuracy": [0.0], "parsed": [0.0]}


def test_without_a_gold_answer_nothing_is_verified() -> None:
    assert TASK.verify("#### 4", TASK.row({"question": "How many?"})) is None


def test_the_student_learns_the_whole_solution() -> None:
    row = TASK.row({"question": "How many?", "answer": "4"})
    assert TASK.target(" 2+2=4\n#### 4\n", row) == "2+2=4\n#### 4"
