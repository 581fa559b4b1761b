"""Gold answers as texts that a teacher is tuned on: what each task makes of them, and which may not be learnt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from potstill.pipeline.gold import Gold, as_asked, gold_of, learnable
from potstill.rows import Message, Row
from potstill.spec import CurationSpec
from potstill.tasks import Task, get_task

LONG = "please tell me where in the shop I find the bells that you had in the window last week"


def rows_of(name: str, records: list[dict[str, Any]]) -> tuple[Task, list[Row]]:
    task = get_task(name)
    rows = [task.row(record) for record in records]
    return task.with_rows(rows), rows


def dialogues(name: str, records: list[dict[str, Any]], *, chain_of_thought: bool = False) -> list[tuple[Message, ...]]:
    task, rows = rows_of(name, records)
    gold = gold_of(rows, task, chain_of_thought=chain_of_thought)
    return [row.messages for row in as_asked(gold.rows, task, chain_of_thought=chain_of_thought)]


def test_a_label_is_learnt_under_the_prompt_that_the_teacher_is_asked_with() -> None:
    ((system, user, answer),) = dialogues("classification", [{"text": "It rings.", "label": "bell"}, {"text": "And this?"}])
    assert "The labels are: bell." in system.content
    assert (user.content, answer) == ("It rings.", Message("assistant", "bell"))


def test_of_several_gold_answers_the_first_is_learnt() -> None:
    ((*_, answer),) = dialogues("qa", [{"question": "How many?", "answers": ["two", "2"]}])
    assert answer == Message("assistant", "two")


def test_a_conversation_is_learnt_with_all_its_turns() -> None:
    turns = [("user", "Hello"), ("assistant", "Hi."), ("user", "A bell?"), ("assistant", "In stock.")]
    messages = [{"role": role, "content": content} for role, content in turns]
    assert dialogues("conversation", [{"messages": messages}]) == [tuple(Message(role, text) for role, text in turns)]


@pytest.mark.parametrize(
    ("name", "answer", "chain_of_thought", "kept"),
    [
        ("math", "Two and two make four.\n#### 4", True, 1),
        ("math", "Two and two make four.\n#### 4", False, 1),
        ("math", "4", False, 0),  # the task's own prompt asks for the way to the answer
        ("qa", "4", False, 1),
        ("qa", "4", True, 0),
    ],
)
def test_answers_without_reasoning_do_not_teach_to_reason(name: str, answer: str, chain_of_thought: bool, kept: int) -> None:
    task, rows = rows_of(name, [{"question": "What is 2 + 2?", "answer": answer}])
    gold = gold_of(rows, task, chain_of_thought=chain_of_thought)
    assert (len(gold.rows), gold.bare) == (kept, 1 - kept)


def learnt(records: list[dict[str, Any]], held_out: list[dict[str, Any]], **curation: Any) -> Mapping[str, Gold]:
    task, rows = rows_of("qa", records)
    gold = {"train": gold_of(rows, task, chain_of_thought=False), "validation": Gold(())}
    away = {"validation": [], "test": [task.row(record) for record in held_out]}
    return learnable(gold, away, task, CurationSpec(**curation))


def test_what_overlaps_with_test_rows_is_not_learnt() -> None:
    records = [{"question": f"{LONG}, Ann", "answer": "Left."}, {"question": "Is it open?", "answer": "Yes."}]
    held_out = [{"question": f"{LONG}, Bob", "answer": "Left."}]
    assert [row.messages[-1].content for row in learnt(records, held_out)["train"].rows] == ["Yes."]
    assert len(learnt(records, held_out, decontaminate=False)["train"].rows) == 2


def test_personal_data_is_treated_as_in_the_students_rows() -> None:
    records = [{"question": "Who answers?", "answer": "ann@example.com"}]
    (row,) = learnt(records, [], personal_data="redact")["train"].rows
    assert row.messages[-1].content == "[EMAIL]"
    assert learnt(records, [], personal_data="drop")["train"].rows == ()


def test_gold_rows_are_kept_that_curation_would_call_duplicates_or_too_short() -> None:
    records = [{"question": f"Is frame {number} there?", "answer": "Yes."} for number in range(40)]
    assert len(learnt(records, [])["train"].rows) == 40
