"""The length target of summaries: taken from the gold ones, told to the teacher, and measured."""

from __future__ import annotations

import pytest

from potstill.rows import Row
from potstill.tasks import get_task
from potstill.tasks.summarization import Summarization

TASK = get_task("summarization")


def row(summary_words: int = 0, **fields: object) -> Row:
    summary = " ".join(["word"] * summary_words)
    return TASK.row({"document": "A text about many things.", "summary": summary, **fields})


@pytest.mark.parametrize(("words", "target"), [(1, 20), (20, 20), (21, 40), (100, 120), (5000, 480)])
def test_the_target_is_a_coarse_step_above_the_gold_lengths(words: int, target: int) -> None:
    task = TASK.with_rows([row(words)] * 10)
    assert isinstance(task, Summarization)
    assert task.max_words == target


def test_one_gold_summary_in_ten_may_be_longer_than_the_target() -> None:
    task = TASK.with_rows([row(15)] * 19 + [row(300)])
    assert task.settled(row(15)).meta["max_words"] == 20


def test_a_few_more_rows_do_not_change_the_target() -> None:
    few, more = [row(words) for words in range(25, 35)], [row(words) for words in range(22, 40)]
    assert TASK.with_rows(few).settled(row()).meta == TASK.with_rows(more).settled(row()).meta == {"max_words": 40}


def test_the_teacher_is_told_the_target_that_stands_in_the_row() -> None:
    task = TASK.with_rows([row(30)])
    settled = task.settled(row(30))
    assert task.teacher_messages(settled)[0].content.endswith("Use at most 40 words.")
    assert TASK.teacher_messages(settled) == task.teacher_messages(settled)
    assert "words" not in settled.messages[0].content


def test_a_row_may_bring_a_target_of_its_own() -> None:
    task = TASK.with_rows([row(30)])
    assert task.settled(row(30, max_words=12)).meta["max_words"] == 12
    for no_target in (0, -3, "many", None):
        odd = row(30, max_words=no_target)
        assert task.settled(odd).meta["max_words"] == 40
        assert "at most 40 words" in task.teacher_messages(odd)[0].content


def test_a_prompt_of_the_users_own_stays_as_it_is() -> None:
    own = TASK.row({"instruction": "Sum this up in one word.", "input": "A text."})
    assert TASK.teacher_messages(TASK.settled(own)) == own.messages


def test_the_share_within_the_target_is_measured() -> None:
    rows = [TASK.row({"document": "A text.", "summary": "one two three", "max_words": 3})] * 3
    score = TASK.score(["one two three", "one two three four", ""], rows)
    assert score.per_row["within_length"] == [1.0, 0.0, 0.0]
    assert score.per_row["rouge_l"][0] == 1.0
    assert score.per_row["rouge_l"][2] == 0.0
    assert TASK.main_metric == "rouge_l"
