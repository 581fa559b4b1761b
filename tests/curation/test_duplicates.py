"""The rules that keep one of several rows that ask the same, or nearly the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from potstill.curation.duplicates import ExactDuplicate, NearDuplicate
from potstill.rows import Message, Row
from potstill.tasks import Task, get_task

Make = Callable[..., Row]
Said = Callable[..., list[str | None]]

STORY = (
    "Tell me how the old lighthouse keeper found his way home through the storm with nothing but "
    "a small lamp, a torn map and the advice of a friendly gull that he had once fed"
)  # 33 words: one changed word at the end changes one of 31 3-grams


def answered(row: Row, answer: str = "An answer.") -> Row:
    return replace(row, messages=(*row.messages, Message("assistant", answer))).with_meta(finish_reasons=["stop"])


def test_the_first_of_equal_questions_stays(text: Task, generated: Make, said: Said) -> None:
    rows = [
        generated("What is it?", "One.", id="first"),
        generated("what  is\nIT?", "Two.", id="second"),
        generated("What is this?", "One."),
        generated("What is it?", "One.", system="Be kind."),
    ]
    rule = ExactDuplicate(text)
    assert rule.name == "exact_duplicate"
    assert said(rule, rows, text) == [None, "asks the same as row first", None, None]


def test_a_dialogue_with_another_history_asks_something_else(text: Task, said: Said) -> None:
    rows = [
        Row(offer, (Message("user", "Hi"), Message("assistant", offer), Message("user", "Yes"), Message("assistant", "Done.")))
        for offer in ("A refund?", "A new one?")
    ]
    for rule in (ExactDuplicate(text), NearDuplicate(text)):
        assert said(rule, rows, text) == [None, None]
    # In a conversation the model writes those turns itself: only what the user says is given.
    conversation = get_task("conversation")
    assert said(ExactDuplicate(conversation), rows, conversation) == [None, "asks the same as row A refund?"]


def test_nearly_equal_questions_are_told_by_their_similarity(text: Task, generated: Make, said: Said) -> None:
    rows = [
        generated(STORY, id="first"),
        generated(STORY[:-3] + "met"),  # 30 of 31 3-grams are the same: 30 / 32
        generated(STORY.replace("lighthouse", "mountain").replace("torn", "new").replace("gull", "dog")),
    ]
    rule = NearDuplicate(text)
    assert rule.name == "near_duplicate"
    assert said(rule, rows, text) == [None, "asks nearly the same as row first (similarity 0.94)", None]


def test_instructions_count_too(text: Task, generated: Make, said: Said) -> None:
    documents = [" ".join(f"{name}{n}" for n in range(20)) for name in ("a", "b", "a")]
    rows = [generated("Sum this up.", id=str(n), system=document) for n, document in enumerate(documents)]
    assert said(NearDuplicate(text), rows, text) == [None, None, "asks nearly the same as row 0 (similarity 1.00)"]


@pytest.mark.parametrize(("other", "same"), [("5 - 3", False), ("5 + 4", False), ("5 + 3 ", True)])
def test_sums_differ_by_a_sign(text: Task, generated: Make, said: Said, other: str, same: bool) -> None:
    rows = [generated("What is 5 + 3?"), generated(f"What is {other}?", id="2")]
    assert [reason is not None for reason in said(NearDuplicate(text), rows, text)] == [False, same]


def test_texts_without_words_are_compared_as_they_stand(text: Task, generated: Make, said: Said) -> None:
    rows = [generated(prompt, id=str(n)) for n, prompt in enumerate(("👍", "👎", "...", "👎"))]
    assert [reason is not None for reason in said(NearDuplicate(text), rows, text)] == [False, False, False, True]


def test_a_problem_with_other_numbers_is_another_problem_only_in_mathematics(
    text: Task, generated: Make, said: Said
) -> None:
    rows = [generated(f"{STORY} in {hours} hours", id=str(hours)) for hours in (3, 5)]
    math = get_task("math")
    assert said(NearDuplicate(math), rows, math) == [None, None]
    assert said(NearDuplicate(text), rows, text)[1] is not None


def test_questions_about_one_passage_are_no_duplicates(said: Said) -> None:
    task, passage = get_task("qa"), " ".join(f"word{n}" for n in range(60))
    questions = ("Who was it?", "When did it end?", "who was it")
    rows = [answered(task.row({"context": passage, "question": question, "id": question})) for question in questions]
    reasons = said(NearDuplicate(task), rows, task)
    assert reasons == [None, None, "asks nearly the same as row Who was it? (similarity 1.00)"]


@pytest.mark.parametrize("kind", [ExactDuplicate, NearDuplicate])
def test_several_answers_to_one_row_are_duplicates_only_where_they_are_equal(
    text: Task, generated: Make, said: Said, kind: type[ExactDuplicate]
) -> None:
    rows = [
        generated(STORY, "He swam.", id="a").with_meta(prompt_id="a"),
        generated(STORY, "He walked.", id="a#2").with_meta(prompt_id="a"),
        generated(STORY, " he WALKED", id="a#3").with_meta(prompt_id="a"),
        generated(STORY, "He flew.", id="b").with_meta(prompt_id="b"),
        generated(STORY, "He ran.", id="a#4"),
    ]
    assert [reason is not None for reason in said(kind(text), rows, text)] == [False, False, True, True, True]


def test_several_answers_with_one_label_are_one_row(generated: Make, said: Said) -> None:
    task = get_task("nli")
    answers = (("neutral", "a"), ("It is neutral.", "a#2"))
    rows = [generated(STORY, answer, id=id).with_meta(prompt_id="a") for answer, id in answers]
    assert said(ExactDuplicate(task), rows, task) == [None, "asks the same as row a"]


def test_of_thousands_of_rows_with_one_template_each_pair_that_is_alike_is_found(
    text: Task, generated: Make, said: Said
) -> None:
    template = "please write a short and friendly note to the customer about the order that was delayed again {} {} {} {}"
    words = [f"word{n}" for n in range(400)]
    rows = [generated(template.format(*words[n : n + 4]), id=f"{n}") for n in range(0, 396, 4)]
    copies = [generated(row.messages[0].content.upper() + "!", id=f"{row.id} copy") for row in rows[::10]]
    reasons = said(NearDuplicate(text), [*rows, *copies], text)
    assert reasons[: len(rows)] == [None] * len(rows)
    assert all(reason is not None for reason in reasons[len(rows) :])
