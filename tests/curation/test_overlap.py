"""The rules that compare rows: equal and nearly equal questions, and questions that stand in a held-out row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from potstill.curation.overlap import Contaminated, ExactDuplicate, NearDuplicate
from potstill.rows import Message, Row
from potstill.tasks import Task, get_task

Make = Callable[..., Row]

STORY = (
    "Tell me how the old lighthouse keeper found his way home through the storm with nothing but "
    "a small lamp, a torn map and the advice of a friendly gull that he had once fed"
)  # 33 words: one changed word at the end changes one of 31 3-grams
THIRTEEN = "the quick brown fox jumps over the lazy dog near the old mill"
CONTEXT = "Context: " + " ".join(f"word{n}" for n in range(60))


def answered(row: Row, answer: str = "An answer.") -> Row:
    return replace(row, messages=(*row.messages, Message("assistant", answer))).with_meta(finish_reasons=["stop"])


def test_the_first_of_equal_questions_stays(text: Task, generated: Make) -> None:
    rule = ExactDuplicate(text)
    assert rule.name == "exact_duplicate"
    assert rule.reject(generated("What is it?", "One.", id="first")) is None
    assert rule.reject(generated("what  is\nIT?", "Two.", id="second")) == "asks the same as row first"
    assert rule.reject(generated("What is this?", "One.")) is None
    assert rule.reject(generated("What is it?", "One.", system="Be kind.")) is None


def test_a_dialogue_with_another_history_asks_something_else(text: Task) -> None:
    rows = [
        Row(offer, (Message("user", "Hi"), Message("assistant", offer), Message("user", "Yes"), Message("assistant", "Done.")))
        for offer in ("A refund?", "A new one?")
    ]
    assert [ExactDuplicate(text).reject(row) for row in rows] == [None, None]
    for rule in (ExactDuplicate(text), NearDuplicate(text)):
        assert [rule.reject(row) for row in rows] == [None, None]
    # In a conversation the model writes those turns itself: only what the user says is given.
    rule = ExactDuplicate(get_task("conversation"))
    assert [rule.reject(row) for row in rows] == [None, "asks the same as row A refund?"]


def test_nearly_equal_questions_are_told_by_their_similarity(text: Task, generated: Make) -> None:
    rule = NearDuplicate(text)
    assert rule.name == "near_duplicate"
    assert rule.reject(generated(STORY, id="first")) is None
    # 30 of 31 3-grams are the same: 30 / 32
    assert rule.reject(generated(STORY[:-3] + "met")) == "asks nearly the same as row first (similarity 0.94)"
    assert rule.reject(generated(STORY.replace("lighthouse", "mountain").replace("torn", "new").replace("gull", "dog"))) is None


def test_instructions_count_too(text: Task, generated: Make) -> None:
    rule = NearDuplicate(text)
    documents = [" ".join(f"{name}{n}" for n in range(20)) for name in ("a", "b")]
    asked = [generated("Sum this up.", id=document[:2], system=document) for document in documents]
    assert [rule.reject(row) for row in asked] == [None, None]
    assert rule.reject(asked[0]) == "asks nearly the same as row a0 (similarity 1.00)"


@pytest.mark.parametrize(("other", "same"), [("5 - 3", False), ("5 + 4", False), ("5 + 3 ", True)])
def test_sums_differ_by_a_sign(text: Task, generated: Make, other: str, same: bool) -> None:
    rule = NearDuplicate(text)
    assert rule.reject(generated("What is 5 + 3?")) is None
    assert (rule.reject(generated(f"What is {other}?", id="2")) is not None) is same


def test_texts_without_words_are_compared_as_they_stand(text: Task, generated: Make) -> None:
    rule = NearDuplicate(text)
    assert [rule.reject(generated(prompt)) for prompt in ("👍", "👎", "...")] == [None, None, None]
    assert rule.reject(generated("👎", id="again")) is not None


def test_a_problem_with_other_numbers_is_another_problem_only_in_mathematics(text: Task, generated: Make) -> None:
    first, second = (generated(f"{STORY} in {hours} hours", id=str(hours)) for hours in (3, 5))
    mathematics, prose = NearDuplicate(get_task("math")), NearDuplicate(text)
    assert [mathematics.reject(first), mathematics.reject(second)] == [None, None]
    assert prose.reject(first) is None
    assert prose.reject(second) is not None


def test_questions_about_one_passage_are_no_duplicates() -> None:
    task = get_task("qa")
    passage = CONTEXT.removeprefix("Context: ")
    rows = [answered(task.row({"context": passage, "question": q, "id": q})) for q in ("Who was it?", "When did it end?")]
    rule = NearDuplicate(task)
    assert [rule.reject(row) for row in rows] == [None, None]
    again = answered(task.row({"context": passage, "question": "who was it", "id": "again"}))
    assert rule.reject(again) == "asks nearly the same as row Who was it? (similarity 1.00)"


def test_thirteen_words_in_a_row_contaminate(text: Task, generated: Make, prepared: Make) -> None:
    row = generated(f"I read that {THIRTEEN.upper()}. Is that so?")
    rule = Contaminated(text, [prepared(f"We say: {THIRTEEN}!")], [row])
    assert rule.name == "contaminated"
    assert rule.reject(row) == f"shares {THIRTEEN!r} with held-out row held-out"


def test_twelve_words_in_a_row_do_not(text: Task, generated: Make, prepared: Make) -> None:
    twelve = THIRTEEN.rpartition(" ")[0]
    row = generated(f"I read that {twelve} house. Is that so?")
    assert Contaminated(text, [prepared(f"We say: {twelve} barn!")], [row]).reject(row) is None


def test_a_short_question_contaminates_where_it_is_equal(text: Task, generated: Make, prepared: Make) -> None:
    rows = [generated("where is my order?"), generated("Where is my order now?"), generated("Where is my order? Tell me.")]
    rule = Contaminated(text, [prepared("Where is my order")], rows)
    assert [rule.reject(row) is not None for row in rows] == [True, False, False]


def test_boilerplate_of_the_data_set_does_not_contaminate(text: Task, generated: Make, prepared: Make) -> None:
    rows = [generated(f"{THIRTEEN}: question {n}") for n in range(3)]
    held_out = [prepared(f"{THIRTEEN}: something else")]
    rule = Contaminated(text, held_out, rows)
    assert [rule.reject(row) for row in rows] == [None] * 3
    rare = Contaminated(text, held_out, rows[:2])
    assert all(rare.reject(row) is not None for row in rows[:2])


def test_a_held_out_question_contaminates_however_often_it_is_repeated(text: Task, generated: Make, prepared: Make) -> None:
    rows = [generated(THIRTEEN + " today", id=str(n)) for n in range(5)]
    rule = Contaminated(text, [prepared(THIRTEEN + " today")], rows)
    assert [rule.reject(row) for row in rows] == ["asks the same as held-out row held-out"] * 5


def test_a_common_question_under_other_instructions_is_boilerplate(text: Task, generated: Make, prepared: Make) -> None:
    rows = [generated("Sum this up.", id=str(n), system=f"Document {n} is about {n} things.") for n in range(5)]
    rule = Contaminated(text, [prepared("Sum this up.", system="Document 3 is about 3 things.")], rows)
    assert [row.id for row in rows if rule.reject(row)] == ["3"]


@pytest.mark.parametrize(
    ("question", "contaminated"),
    [("What year did he die?", True), ("In what year did he die?", True), ("Who was his teacher?", False)],
)
def test_a_held_out_passage_may_be_asked_about_something_else(question: str, contaminated: bool) -> None:
    task = get_task("qa")
    passage = CONTEXT.removeprefix("Context: ")
    row = answered(task.row({"context": passage, "question": question}))
    rule = Contaminated(task, [task.row({"context": passage, "question": "What year did he die?"})], [row])
    assert (rule.reject(row) is not None) is contaminated


def test_a_held_out_question_may_be_asked_about_another_passage() -> None:
    task = get_task("nli")
    row = answered(task.row({"premise": "A dog runs along the beach.", "hypothesis": "An animal is outdoors."}))
    other = task.row({"premise": "Two cats sleep under a tree.", "hypothesis": "An animal is outdoors."})
    assert Contaminated(task, [other], [row]).reject(row) is None


def test_what_the_model_says_itself_does_not_contaminate() -> None:
    task = get_task("conversation")
    held_out = task.row({"messages": [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": THIRTEEN}]})
    row = answered(task.row({"messages": [{"role": "user", "content": "Hello"}]}), THIRTEEN)
    assert Contaminated(task, [held_out], [row]).reject(row) is None
