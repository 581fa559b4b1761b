"""The four steps apart: what they give, how they report, and what they say to wrong input."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pipeline.jobs import write_rows_file
from potstill import fine_tune_student, generate_teacher_responses, load_dataset, load_model
from potstill.errors import InputError
from potstill.service.notebook import NotebookProgress
from service.conftest import ROWS, Teacher

QUICK = {"learning_rate": 1e-2, "batch_size": 8, "num_epochs": 1}


@pytest.fixture
def rows(place: Path) -> Path:
    return write_rows_file(place / "rows.jsonl", ROWS)


@pytest.mark.parametrize(
    ("record", "task"),
    [
        ({"premise": "a", "hypothesis": "b", "label": "neutral"}, "nli"),
        ({"messages": [{"role": "user", "content": "a"}]}, "conversation"),
        ({"document": "a", "summary": "b"}, "summarization"),
        ({"context": "a", "question": "b", "answers": ["c"]}, "qa"),
        ({"question": "How many?", "answer": "They have 3 + 4. #### 7"}, "math"),
        ({"question": "How many?", "answer": "1,250"}, "math"),
        ({"question": "Who?", "answer": "Ada Lovelace"}, "qa"),
        ({"text": "a", "label": "b"}, "classification"),
        ({"prompt": "a"}, "text"),
        ({"instruction": "a", "input": "b"}, "text"),
    ],
)
def test_the_task_is_told_by_the_fields(place: Path, record: dict[str, object], task: str) -> None:
    (place / "one.jsonl").write_text(json.dumps(record) + "\n")
    assert load_dataset("one.jsonl").task.name == task


def test_a_task_that_is_named_is_taken(place: Path) -> None:
    (place / "one.jsonl").write_text('{"question": "How many?", "answer": "7"}\n')
    assert load_dataset("one.jsonl", task="qa").task.name == "qa"


def test_wrong_data_are_named(place: Path) -> None:
    (place / "odd.jsonl").write_text('{"colour": "red"}\n')
    (place / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="task cannot be told") as error:
        load_dataset("odd.jsonl")
    assert error.value.where == "odd.jsonl, line 1"
    with pytest.raises(InputError, match="no rows"):
        load_dataset("empty.jsonl")
    with pytest.raises(InputError, match="does not exist"):
        load_dataset("absent.jsonl")
    with pytest.raises(InputError, match="unknown task"):
        load_dataset("odd.jsonl", task="poetry")


def test_wrong_models_and_settings_are_named(rows: Path, teacher: Teacher, tiny_student: Path) -> None:
    data = load_dataset(rows)
    with pytest.raises(InputError, match="no model is called"):
        load_model("nowhere-at-all")
    with pytest.raises(InputError, match="unknown key 'tempreature'"):
        generate_teacher_responses(load_model(teacher.spec), data, tempreature=0.1)
    with pytest.raises(InputError, match="learning_rate"):
        fine_tune_student(load_model(tiny_student), data, data, learning_rate=-1)
    with pytest.raises(InputError, match="in jobs only"):
        generate_teacher_responses(load_model(teacher.spec), data, curation={"semantic": "org/embedder"})
    assert teacher.asked == []


def test_what_is_not_worth_learning_is_left_out_with_the_reason(rows: Path, teacher: Teacher) -> None:
    gold = teacher.answer
    odd = ROWS[0]["text"]
    teacher.answer = lambda messages: "no label at all" if messages[-1]["content"] == odd else gold(messages)
    answered = generate_teacher_responses(load_model(teacher.spec), load_dataset(rows), max_tokens=16)
    assert len(answered) == len(ROWS) - 1
    assert [(entry.row.messages[-2].content, entry.rule) for entry in answered.rejected] == [(odd, "unparsable")]
    assert "1 rejected" in repr(answered)


def test_a_student_needs_rows(rows: Path, teacher: Teacher, tiny_student: Path) -> None:
    teacher.answer = lambda messages: "I'm sorry, but I can't help with that."
    answered = generate_teacher_responses(load_model(teacher.spec), load_dataset(rows))
    with pytest.raises(InputError, match="too few rows") as error:
        fine_tune_student(load_model(tiny_student), answered, answered)
    assert error.value.found == f"0; {len(ROWS)} refused"


def test_they_run_in_a_cell_of_a_notebook(rows: Path, teacher: Teacher, tiny_student: Path) -> None:
    """A notebook's cells run inside an event loop, in which no other can be started."""

    async def cell() -> Path:
        answered = generate_teacher_responses(load_model(teacher.spec), load_dataset(rows), max_tokens=16)
        return fine_tune_student(load_model(tiny_student), answered, answered, **QUICK).folder

    assert (asyncio.run(cell()) / "model.safetensors").is_file()


def test_a_bar_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    progress = NotebookProgress()
    progress.begin("the teacher answers", 4)
    progress.update(1)
    progress.update(4, detail="last row")
    progress.say("kept: 4")
    progress.begin("training", None)
    progress.update(3, 10)
    progress.end()
    progress.end()
    shown = capsys.readouterr()
    assert shown.out == ""
    for text in ("the teacher answers", "4/4", "last row", "kept: 4", "training"):
        assert text in shown.err
