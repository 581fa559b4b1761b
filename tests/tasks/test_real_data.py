"""Every real data set is read whole, its gold answers score full marks, and wrong answers are refuted."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from potstill.rows import Row
from potstill.tasks import Task, get_task
from potstill.tasks.reading import read_rows_of

FILES = [
    ("nli", "snli"),
    ("classification", "clinc150"),
    ("qa", "squad"),
    ("math", "gsm8k"),
    ("summarization", "mts_dialog"),
    ("summarization", "scitldr"),
    ("conversation", "star"),
    ("conversation", "bitext"),
]


def read(data_dir: Path, task: str, name: str, split: str = "test") -> tuple[Task, list[Row]]:
    rows = read_rows_of(data_dir / task / f"{name}.{split}.jsonl", get_task(task), on_bad_row="fail").rows
    return get_task(task).with_rows(rows), rows


@pytest.mark.parametrize(("name", "source"), FILES)
def test_gold_answers_score_full_marks(data_dir: Path, name: str, source: str) -> None:
    task, rows = read(data_dir, name, source)
    rows = rows[:40]
    golds = [row.references if name == "conversation" else row.references[0] for row in rows]
    assert task.score(golds, rows).per_row[task.main_metric] == pytest.approx([1.0] * len(rows))


@pytest.mark.parametrize(("name", "source"), FILES)
def test_the_gold_answer_is_not_in_what_the_teacher_is_asked(data_dir: Path, name: str, source: str) -> None:
    task, rows = read(data_dir, name, source)
    for row in rows[:40]:
        assert row.messages[-1].role == "user"
        if name == "math":
            assert row.references[0] not in "\n".join(message.content for message in task.teacher_messages(row))


@pytest.mark.parametrize(("name", "source"), FILES[:4])
def test_gold_answers_verify_and_wrong_ones_do_not(data_dir: Path, name: str, source: str) -> None:
    task, rows = read(data_dir, name, source)
    for row, other in pairwise(rows):
        gold, wrong = row.references[0], other.references[0]
        assert task.verify(gold, row) in (True, None)
        if task.parse(wrong, row).value != task.parse(gold, row).value:
            assert task.verify(wrong, row) in (False, None)


def test_only_long_gold_answers_of_squad_cannot_be_verified(data_dir: Path) -> None:
    task, rows = read(data_dir, "qa", "squad", "train")
    unknown = [row for row in rows if task.verify(row.references[0], row) is None]
    assert len(unknown) < 0.01 * len(rows)


def test_labels_are_told_to_the_teacher_and_learnt_by_the_student(data_dir: Path) -> None:
    task, rows = read(data_dir, "classification", "clinc150", "train")
    assert len(task.labels) == 151
    asked = task.teacher_messages(rows[0])[0].content
    assert all(label in asked for label in task.labels)
    assert "account_blocked" not in rows[0].messages[0].content
