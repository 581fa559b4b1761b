"""Every form in which a record may come is the same row in the end: what is asked, and the gold answer."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from potstill.rows import Row
from potstill.tasks import RowError, get_task

Record = Mapping[str, Any]
MESSAGES = [{"role": "user", "content": "Where is my parcel?"}]
ANSWERED = [*MESSAGES, {"role": "assistant", "content": "On its way."}]
SQUAD = {"text": ["Denver Broncos", "Broncos", "Denver Broncos"], "answer_start": [177, 184, 177]}
ARC = {"text": ["iron", "wood", "glass"], "label": ["1", "2", "3"]}


def last_question(row: Row) -> str:
    assert row.messages[-1].role == "user"
    return row.messages[-1].content


@pytest.mark.parametrize(
    ("task", "record", "question", "gold"),
    [
        ("nli", {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"},
         "Premise: It rains.\nHypothesis: It is wet.", "entailment"),
        ("nli", {"premise": "a", "hypothesis": "b", "label": 0}, "Premise: a\nHypothesis: b", "entailment"),
        ("nli", {"premise": "a", "hypothesis": "b", "label": 1}, "Premise: a\nHypothesis: b", "neutral"),
        ("nli", {"premise": "a", "hypothesis": "b", "label": "2"}, "Premise: a\nHypothesis: b", "contradiction"),
        ("nli", {"premise": "a", "hypothesis": "b", "label": -1}, "Premise: a\nHypothesis: b", None),
        ("nli", {"premise": "a", "hypothesis": "b", "label": "Neutral"}, "Premise: a\nHypothesis: b", "neutral"),
        ("nli", {"premise": "a", "hypothesis": "b", "label": "not_entailment"}, "Premise: a\nHypothesis: b", "not_entailment"),
        ("nli", {"premise": "a", "hypothesis": "b"}, "Premise: a\nHypothesis: b", None),
        ("nli", {"messages": [*MESSAGES, {"role": "assistant", "content": "Contradiction."}]},
         "Where is my parcel?", "contradiction"),
        ("classification", {"text": "My card is lost", "label": "lost_card"}, "My card is lost", "lost_card"),
        ("classification", {"text": "My card is lost", "label": 3}, "My card is lost", "3"),
        ("classification", {"text": "My card is lost", "label": ""}, "My card is lost", None),
        ("qa", {"context": "The Broncos won.", "question": "Who won?", "answers": SQUAD},
         "Context: The Broncos won.\n\nQuestion: Who won?", ["Denver Broncos", "Broncos"]),
        ("qa", {"question": "Who won?", "answers": [{"text": "Broncos", "answer_start": 4}]}, "Question: Who won?",
         ["Broncos"]),
        ("qa", {"question": "Who won?", "answers": ["Broncos", "Denver"]}, "Question: Who won?", ["Broncos", "Denver"]),
        ("qa", {"question": "Who won?", "answers": "Broncos"}, "Question: Who won?", "Broncos"),
        ("qa", {"question": "Who won?", "answers": None, "answer": "Broncos"}, "Question: Who won?", "Broncos"),
        ("qa", {"question": "How many?", "answer": 7}, "Question: How many?", "7"),
        ("qa", {"question": "Who won?", "answers": {"text": [], "answer_start": []}}, "Question: Who won?", None),
        ("qa", {"question": "Metal?", "choices": ["iron", "wood"], "answer": "b"}, "Question: Metal?\nA. iron\nB. wood", "B"),
        ("qa", {"question": "Metal?", "choices": ["iron", "wood"], "answer": 0}, "Question: Metal?\nA. iron\nB. wood", "A"),
        ("qa", {"question": "Metal?", "choices": ["iron", "wood"], "answer": "Wood"}, "Question: Metal?\nA. iron\nB. wood",
         "B"),
        ("qa", {"question": "Metal?", "choices": ARC, "answerKey": "3"}, "Question: Metal?\nA. iron\nB. wood\nC. glass", "C"),
        ("qa", {"question": "Metal?", "choices": ARC, "answerKey": "A"}, "Question: Metal?\nA. iron\nB. wood\nC. glass", "A"),
        ("math", {"question": "Two and two?", "answer": "2+2=<<2+2=4>>4\n#### 4"}, "Two and two?", "2+2=<<2+2=4>>4\n#### 4"),
        ("math", {"question": "Two and two?", "answer": 4}, "Two and two?", "4"),
        ("math", {"question": "Two and two?", "final_answer": "4"}, "Two and two?", "4"),
        ("summarization", {"document": "A long text.", "summary": "Short."}, "A long text.", "Short."),
        ("summarization", {"document": "A long text.", "summary": "Short.", "references": ["Short.", "Brief."]},
         "A long text.", ["Short.", "Brief."]),
        ("summarization", {"document": "A long text."}, "A long text.", None),
        ("text", {"text": "Once upon a time"}, "Once upon a time", None),
    ],
)
def test_the_tasks_own_form(task: str, record: Record, question: str, gold: str | list[str] | None) -> None:
    row = get_task(task).row(record)
    assert last_question(row) == question
    assert row.reference == gold


@pytest.mark.parametrize(
    ("record", "question", "gold"),
    [
        ({"messages": ANSWERED}, "Where is my parcel?", "On its way."),
        ({"messages": MESSAGES}, "Where is my parcel?", None),
        ({"messages": MESSAGES, "reference": "On its way."}, "Where is my parcel?", "On its way."),
        ({"messages": MESSAGES, "reference": ""}, "Where is my parcel?", None),
        ({"messages": MESSAGES, "reference": []}, "Where is my parcel?", None),
        ({"messages": ANSWERED, "reference": "At the depot."}, "Where is my parcel?", "At the depot."),
        ({"instruction": "Translate.", "input": "Hund", "output": "dog"}, "Translate.\n\nHund", "dog"),
        ({"instruction": "Name a dog.", "input": "", "output": "Rex"}, "Name a dog.", "Rex"),
        ({"instruction": "Name a dog."}, "Name a dog.", None),
        ({"prompt": "Name a dog.", "completion": " Rex"}, "Name a dog.", "Rex"),
        ({"prompt": "Name a dog."}, "Name a dog.", None),
    ],
)
@pytest.mark.parametrize("task", ["classification", "qa", "summarization", "text", "conversation"])
def test_the_forms_that_all_tasks_take(task: str, record: Record, question: str, gold: str | None) -> None:
    row = get_task(task).row(record)
    assert last_question(row) == question
    assert row.references == ([] if gold is None else [gold])


def test_a_conversation_has_all_gold_turns_as_its_reference() -> None:
    dialogue = [
        {"role": "system", "content": "Be kind."},
        *ANSWERED,
        {"role": "user", "content": "Thanks."},
    ]
    task = get_task("conversation")
    whole = task.row({"messages": [*dialogue, {"role": "assistant", "content": "My pleasure."}]})
    assert whole.reference == ["On its way.", "My pleasure."]
    assert last_question(whole) == "Thanks."
    assert task.turns(whole) == 2
    assert task.row({"messages": dialogue, "reference": "My pleasure."}).reference == whole.reference
    assert task.row({"messages": dialogue, "reference": ["a", "b"]}).reference == ["a", "b"]
    assert task.row({"messages": dialogue}).reference is None
    answered = [*dialogue, {"role": "assistant", "content": "My pleasure."}]
    assert task.row({"messages": answered, "reference": "Bye."}).reference == ["On its way.", "Bye."]
    with pytest.raises(RowError, match="3 turns, expected 2"):
        task.row({"messages": dialogue, "reference": ["a", "b", "c"]})


def test_earlier_gold_turns_stay_in_the_prompt_of_a_task_with_one_answer() -> None:
    task = get_task("text")
    row = task.row({"messages": [*ANSWERED, {"role": "user", "content": "Thanks."}, {"role": "assistant", "content": "Bye."}]})
    assert [message.content for message in row.messages] == ["Where is my parcel?", "On its way.", "Thanks."]
    assert row.reference == "Bye."
    assert task.turns(row) == 1


@pytest.mark.parametrize(
    ("task", "record", "why"),
    [
        ("nli", {"premise": "a"}, "'hypothesis' is missing"),
        ("nli", {"premise": "a", "hypothesis": " ", "label": 0}, "'hypothesis' is empty"),
        ("nli", {"premise": "a", "hypothesis": "b", "label": True}, "'label' is True, expected a text or an integer"),
        ("classification", {"text": "a", "label": ["x", "y"]}, "'label' is .*expected a text or an integer"),
        ("classification", {"sentence": "a"}, "found the fields sentence; expected text/label, or messages"),
        ("qa", {"question": ["a"]}, "'question' is list, expected text"),
        ("qa", {"question": "a", "answers": [None]}, "'answers' is missing"),
        ("qa", {"question": "a", "choices": ["b"]}, "no list of 2 to 26 texts"),
        ("qa", {"question": "a", "choices": ["b", "c"], "answer": "D"}, "'answer' is 'D', expected a choice or its letter"),
        ("math", {"question": "Two and two?", "answer": "I do not know"}, "has no final number"),
        ("math", {"messages": ANSWERED}, "has no final number"),
        ("summarization", {"document": "", "summary": "b"}, "'document' is empty"),
        ("conversation", {"prompt": ""}, "'prompt' is empty"),
        ("text", {}, "found the fields nothing"),
        ("text", {"messages": []}, "'messages' is empty"),
        ("text", {"messages": "hello"}, "'messages' is str"),
        ("text", {"messages": MESSAGES, "reference": {"a": 1}}, "'reference' is dict"),
        ("text", {"text": "a", "meta": "b"}, "'meta' is str, expected an object"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_found(task: str, record: Record, why: str) -> None:
    with pytest.raises(RowError, match=why):
        get_task(task).row(record)


def test_a_row_keeps_its_id_and_has_one_by_content_where_it_has_none() -> None:
    task = get_task("classification")
    record = {"text": "My card is lost", "label": "lost_card"}
    assert task.row({**record, "id": 7}).id == "7"
    unnamed = task.row(record)
    assert len(unnamed.id) == 16
    assert task.row({**record, "id": ""}).id == task.row({**record, "note": "other"}).id == unnamed.id
    assert task.row({**record, "label": "other"}).id != unnamed.id


def test_other_fields_go_into_meta_unless_json_cannot_hold_them() -> None:
    image = base64.b64decode("iVBORw0KGgo=")
    record = {"text": "a", "source": "mail", "day": date(2024, 5, 1), "image": image, "price": Decimal("1.50")}
    row = get_task("text").row({**record, "meta": {"topic": "x", "source": "letter"}})
    assert row.meta == {"source": "letter", "day": date(2024, 5, 1), "topic": "x"}
