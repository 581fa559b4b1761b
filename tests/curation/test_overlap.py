"""Rows that ask what a held-out row asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from potstill.curation.overlap import Contaminated
from potstill.rows import Message, Row
from potstill.tasks import Task, get_task

Make = Callable[..., Row]
Said = Callable[..., list[str | None]]

THIRTEEN = "the quick brown fox jumps over the lazy dog near the old mill"
CONTEXT = "Context: " + " ".join(f"word{n}" for n in range(60))


def answered(row: Row, answer: str = "An answer.") -> Row:
    return replace(row, messages=(*row.messages, Message("assistant", answer))).with_meta(finish_reasons=["stop"])


def test_thirteen_words_in_a_row_contaminate(text: Task, generated: Make, prepared: Make, said: Said) -> None:
    row = generated(f"I read that {THIRTEEN.upper()}. Is that so?")
    rule = Contaminated(text, [prepared(f"We say: {THIRTEEN}!")])
    assert rule.name == "contaminated"
    assert said(rule, [row], text) == [f"shares {THIRTEEN!r} with held-out row held-out"]


def test_twelve_words_in_a_row_do_not(text: Task, generated: Make, prepared: Make, said: Said) -> None:
    twelve = THIRTEEN.rpartition(" ")[0]
    row = generated(f"I read that {twelve} house. Is that so?")
    assert said(Contaminated(text, [prepared(f"We say: {twelve} barn!")]), [row], text) == [None]


@pytest.mark.parametrize(("words", "shared"), [(8, True), (7, False)])
def test_eight_words_in_a_row_contaminate_where_the_job_is_strict(
    text: Task, generated: Make, prepared: Make, said: Said, words: int, shared: bool
) -> None:
    run = " ".join(THIRTEEN.split()[:words])
    row = generated(f"I read that {run} house. Is that so?")
    assert (said(Contaminated(text, [prepared(f"We say: {run} barn!")], 8), [row], text) != [None]) is shared


def test_a_short_question_contaminates_where_it_is_equal(text: Task, generated: Make, prepared: Make, said: Said) -> None:
    rows = [generated("where is my order?"), generated("Where is my order now?"), generated("Where is my order? Tell me.")]
    rule = Contaminated(text, [prepared("Where is my order")])
    assert [reason is not None for reason in said(rule, rows, text)] == [True, False, False]


def test_boilerplate_of_the_data_set_does_not_contaminate(text: Task, generated: Make, prepared: Make, said: Said) -> None:
    rows = [generated(f"{THIRTEEN}: question {n}") for n in range(3)]
    held_out = [prepared(f"{THIRTEEN}: something else")]
    assert said(Contaminated(text, held_out), rows, text) == [None] * 3
    assert None not in said(Contaminated(text, held_out), rows[:2], text)


def test_many_answers_to_one_question_do_not_make_it_boilerplate(
    text: Task, generated: Make, prepared: Make, said: Said
) -> None:
    rows = [generated(f"{THIRTEEN}: question", f"answer {n}").with_meta(prompt_id="q") for n in range(16)]
    assert None not in said(Contaminated(text, [prepared(f"{THIRTEEN}: something else")]), rows, text)


def test_a_held_out_question_contaminates_however_often_it_is_repeated(
    text: Task, generated: Make, prepared: Make, said: Said
) -> None:
    rows = [generated(THIRTEEN + " today", id=str(n)) for n in range(5)]
    rule = Contaminated(text, [prepared(THIRTEEN + " today")])
    assert said(rule, rows, text) == ["asks the same as held-out row held-out"] * 5


def test_a_common_question_under_other_instructions_is_boilerplate(
    text: Task, generated: Make, prepared: Make, said: Said
) -> None:
    rows = [generated("Sum this up.", id=str(n), system=f"Document {n} is about {n} things.") for n in range(5)]
    rule = Contaminated(text, [prepared("Sum this up.", system="Document 3 is about 3 things.")])
    assert [reason is not None for reason in said(rule, rows, text)] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("question", "contaminated"),
    [("What year did he die?", True), ("In what year did he die?", True), ("Who was his teacher?", False)],
)
def test_a_held_out_passage_may_be_asked_about_something_else(said: Said, question: str, contaminated: bool) -> None:
    task = get_task("qa")
    passage = CONTEXT.removeprefix("Context: ")
    row = answered(task.row({"context": passage, "question": question}))
    rule = Contaminated(task, [task.row({"context": passage, "question": "What year did he die?"})])
    assert (said(rule, [row], task) != [None]) is contaminated


def test_a_held_out_question_may_be_asked_about_another_passage(said: Said) -> None:
    task = get_task("nli")
    row = answered(task.row({"premise": "A dog runs along the beach.", "hypothesis": "An animal is outdoors."}))
    other = task.row({"premise": "Two cats sleep under a tree.", "hypothesis": "An animal is outdoors."})
    assert said(Contaminated(task, [other]), [row], task) == [None]


def test_what_the_model_says_itself_does_not_contaminate(said: Said) -> None:
    task = get_task("conversation")
    held_out = task.row({"messages": [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": THIRTEEN}]})
    row = answered(task.row({"messages": [{"role": "user", "content": "Hello"}]}), THIRTEEN)
    assert said(Contaminated(task, [held_out]), [row], task) == [None]


def test_nothing_is_held_out(text: Task, generated: Make, said: Said) -> None:
    assert said(Contaminated(text, []), [generated(THIRTEEN)], text) == [None]
