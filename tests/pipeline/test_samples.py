"""What `potstill init` writes for each task: a commented job that loads, and rows that a first run can learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from potstill.curation import MIN_KEPT_ROWS, curate
from potstill.errors import InputError
from potstill.pipeline.check import check_job
from potstill.pipeline.prepare import planned_splits, read_job_rows
from potstill.pipeline.samples import write_samples
from potstill.rows import Message, Row
from potstill.spec import JobSpec, TaskName, load_job
from potstill.tasks import get_task

ALL = get_args(TaskName)


@pytest.fixture(params=ALL)
def job(request: pytest.FixtureRequest, tmp_path: Path) -> JobSpec:
    written, rows = write_samples(request.param, tmp_path)
    assert {written.name, rows.name} == {path.name for path in tmp_path.iterdir()}
    return load_job(written)


def test_there_are_seven_tasks() -> None:
    assert set(ALL) == {"nli", "conversation", "qa", "math", "summarization", "classification", "text"}


def test_the_job_is_of_its_task_and_its_comments_explain_it(job: JobSpec, tmp_path: Path) -> None:
    assert (job.name, Path(job.data.train).name) == (job.task, f"{job.task}.jsonl")
    text = (tmp_path / f"{job.task}.yaml").read_text()
    assert text.count("#") >= 10
    assert f"potstill check {job.task}.yaml" in text


@pytest.mark.usefixtures("embedded_gguf")
def test_the_job_passes_the_checks(job: JobSpec) -> None:
    findings = check_job(job, ask_endpoint=False)
    assert {finding.subject: finding.text for finding in findings if finding.error is not None} == {}


def answered(row: Row, number: int) -> Row:
    """The row as a perfect teacher leaves it: the gold answer, or one that no other row has."""
    reply = row.references[-1] if row.references else f"This is answer {number}."
    return replace(row, messages=(*row.messages, Message("assistant", reply)), meta={**row.meta, "finish_reasons": ["stop"]})


def test_the_rows_are_enough_and_differ_from_each_other(job: JobSpec) -> None:
    splits = planned_splits(read_job_rows(job))
    task = get_task(job.task).with_rows([row for rows in splits.values() for row in rows])
    train = [answered(task.settled(row), number) for number, row in enumerate(splits["train"])]
    result = curate(train, split="train", spec=job.curation, task=task, held_out=splits["validation"] + splits["test"])
    assert result.counts == {}
    assert len(result.kept) >= MIN_KEPT_ROWS


def test_labels_are_balanced(tmp_path: Path) -> None:
    for name in ("nli", "classification"):
        rows = read_job_rows(load_job(write_samples(name, tmp_path)[0]))["train"].rows
        labels = [row.references[0] for row in rows]
        assert min(map(labels.count, set(labels))) >= len(labels) // len(set(labels)) - 1


@pytest.mark.parametrize("name", ["qa.yaml", "qa.jsonl"])
def test_existing_files_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="exists already") as error:
        write_samples("qa", tmp_path)
    assert (error.value.exit_code, error.value.where) == (2, str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_an_unknown_task_is_told_the_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown task") as error:
        write_samples("../../poetry", tmp_path)
    assert (error.value.exit_code, error.value.expected) == (2, ", ".join(ALL))
    assert list(tmp_path.iterdir()) == []
