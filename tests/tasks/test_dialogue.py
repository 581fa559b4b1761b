"""Conversation and text: what is given, what a model writes itself, and how its turns are scored."""

from __future__ import annotations

import pytest

from potstill.rows import Message, Row
from potstill.tasks import get_task

DIALOGUE = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Where is my parcel?"},
        {"role": "assistant", "content": "What is the order number?"},
        {"role": "user", "content": "It is 12."},
        {"role": "assistant", "content": "It arrives on Monday."},
    ]
}


def answered(row: Row, *texts: str) -> Row:
    """The row with a model's turns after its last ones, as generation writes it."""
    turns = iter(texts)
    users = [message.content for message in row.messages if message.role == "user"]
    messages = [message for message in row.messages if message.role == "system"]
    for user in users:
        messages += [Message("user", user), Message("assistant", next(turns))]
    return Row(row.id, tuple(messages), row.reference)


def test_every_turn_of_a_conversation_counts_alike() -> None:
    task = get_task("conversation")
    row = task.row(DIALOGUE)
    right, wrong = row.references[1], "xyz"
    score = task.score([row.references, [wrong, right], [wrong, wrong]], [row] * 3).per_row
    assert score["rouge_l"] == pytest.approx([1.0, 0.5, 0.0])
    assert score["bleu"][0] == pytest.approx(1.0)


def test_a_missing_turn_is_a_bug_not_a_score() -> None:
    task = get_task("conversation")
    with pytest.raises(ValueError, match="zip"):
        task.score([["one turn"]], [task.row(DIALOGUE)])


def test_what_is_given_is_the_same_before_and_after_a_model_answered() -> None:
    conversation, text = get_task("conversation"), get_task("text")
    row = conversation.row(DIALOGUE)
    assert [message.content for message in conversation.given(row)] == ["Be kind.", "Where is my parcel?", "It is 12."]
    assert conversation.given(answered(row, "a", "b")) == conversation.given(row)
    row = text.row(DIALOGUE)
    assert text.given(row) == row.messages
    assert text.given(answered(row, "What is the order number?", "b")) == row.messages
    assert text.asked(row) == ("Where is my parcel?\nWhat is the order number?\nIt is 12.",)


def test_a_question_about_a_passage_and_the_passage_are_two_parts() -> None:
    qa, nli = get_task("qa"), get_task("nli")
    assert qa.asked(qa.row({"context": "A passage.", "question": "Who?"})) == ("Context: A passage.", "Who?")
    assert qa.asked(qa.row({"question": "Who?"})) == ("Question: Who?",)
    assert nli.asked(nli.row({"premise": "It rains.", "hypothesis": "Wet."})) == ("Premise: It rains.", "Wet.")
    assert nli.asked(nli.row({"prompt": "Is it wet?"})) == ("Is it wet?",)


def test_text_is_scored_against_the_best_reference() -> None:
    task = get_task("text")
    row = task.row({"messages": [{"role": "user", "content": "Name a dog."}], "reference": ["Rex", "Good old Fido"]})
    assert task.score(["Rex", "a cat"], [row, row]).per_row["rouge_l"] == [1.0, 0.0]


def test_an_empty_answer_has_a_reason() -> None:
    task = get_task("text")
    assert task.parse(" \n", task.row({"text": "a"})).reason == "the answer is empty"
