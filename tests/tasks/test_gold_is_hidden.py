"""The teacher is asked the same whatever the gold answer is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from potstill.tasks import get_task

USER = {"role": "user", "content": "Where is it?"}
FIRST = {"role": "assistant", "content": "Which one?"}


@pytest.mark.parametrize(
    ("task", "record", "golds"),
    [
        ("nli", {"premise": "a", "hypothesis": "b"}, [{"label": 0}, {"label": "neutral"}]),
        ("classification", {"text": "a"}, [{"label": "x"}, {"label": "y"}]),
        ("qa", {"context": "a b", "question": "c"}, [{"answers": {"text": ["b"]}}, {"answers": ["a"]}, {"answer": "a b"}]),
        ("qa", {"question": "c", "choices": ["a", "b"]}, [{"answer": "A"}, {"answer": 1}, {"answerKey": "B"}]),
        ("math", {"question": "a"}, [{"answer": "#### 1"}, {"answer": "2", "final_answer": "2"}, {"final_answer": "3"}]),
        ("summarization", {"document": "a"}, [{"summary": "b"}, {"references": ["c", "d"]}]),
        ("text", {"prompt": "a"}, [{"completion": "b"}, {"completion": "c"}]),
        ("text", {"instruction": "a"}, [{"output": "b"}, {"output": "c"}]),
        ("text", {"messages": [USER]}, [{"reference": "b"}, {"messages": [USER, {"role": "assistant", "content": "c"}]}]),
        ("conversation", {"messages": [USER, FIRST, USER]},
         [{"reference": "b"}, {"messages": [USER, FIRST, USER, {"role": "assistant", "content": "c"}]}]),
    ],
)
def test_the_question_does_not_depend_on_the_gold_answer(
    task: str, record: Mapping[str, Any], golds: list[dict[str, Any]]
) -> None:
    asker = get_task(task, ("x", "y") if task == "classification" else ())
    rows = [asker.row(record), *(asker.row({**record, **gold}) for gold in golds)]
    assert [bool(row.references) for row in rows] == [False] + [True] * len(golds)
    assert len({asker.teacher_messages(asker.settled(row)) for row in rows}) == 1
    assert rows[0].messages[-1].role == "user"
