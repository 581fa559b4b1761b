"""What is looked at before a teacher is corrected: gold answers, memory, what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.test_check import EMBEDDED, student_folder
from potstill.errors import InputError, MachineError
from potstill.pipeline.check import Finding, check_job, preflight
from potstill.spec import parse_job

pytestmark = pytest.mark.usefixtures("embedded_gguf")
CORRECTED = {"model": EMBEDDED, "correct": True}


def write_rows(folder: Path, gold: int, count: int = 60) -> None:
    """Rows of which the first so many have a gold answer."""
    rows = [{"question": f"How many bells has frame {number}?", "answer": "Two."} for number in range(count)]
    for row in rows[gold:]:
        row["answer"] = ""
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def test_gold_answers_and_memory_are_counted(tmp_path: Path) -> None:
    write_rows(tmp_path, 60)
    told = [finding.text for finding in check(tmp_path, CORRECTED)]
    assert told[0] == "44 gold rows to learn from, 8 to choose the epoch by; nothing to pay, the teacher is tuned here"
    assert told[1].startswith("about 2.2 GB to train 135 million parameters")


def check(folder: Path, teacher: Any, **values: Any) -> list[Finding]:
    base = {"task": "qa", "teacher": teacher, "student": EMBEDDED, "data": {"train": "rows.jsonl"}}
    job = parse_job({**base, **values}, source="job.yaml", folder=folder, default_name="job")
    return [finding for finding in check_job(job, ask_endpoint=False) if finding.subject == "correction"]


def test_a_job_that_corrects_nothing_is_not_looked_at(tmp_path: Path) -> None:
    write_rows(tmp_path, 60)
    assert check(tmp_path, EMBEDDED) == []


def test_too_few_gold_answers(tmp_path: Path) -> None:
    write_rows(tmp_path, 12)
    (finding,) = check(tmp_path, CORRECTED)
    assert isinstance(finding.error, InputError)
    assert finding.error.where == "key 'teacher.correct' of the job file"
    assert finding.error.expected == "at least 16"
    job = parse_job({"task": "qa", "teacher": CORRECTED, "student": EMBEDDED, "data": {"train": "rows.jsonl"}},
                    source="job.yaml", folder=tmp_path, default_name="job")
    with pytest.raises(InputError, match="too few train rows have a gold answer"):
        preflight(job, tmp_path / "run")
    preflight(job, tmp_path / "run", until="prepare")


@pytest.mark.parametrize(("answer", "bare"), [("Two and two are four.\n#### 4", False), ("4", True)])
def test_bare_answers_do_not_teach_a_teacher_that_is_to_reason(tmp_path: Path, answer: str, bare: bool) -> None:
    rows = [{"question": f"What is {number} and {number}?", "answer": answer} for number in range(60)]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    finding = check(tmp_path, CORRECTED, task="math")[0]
    assert (finding.error is not None) == bare
    if finding.error is not None:
        assert "44 without the reasoning" in str(finding.error.found)


def test_a_teacher_too_large_for_the_memory(tmp_path: Path) -> None:
    write_rows(tmp_path, 60)
    path = str(student_folder(tmp_path / "large", 10**11))
    error = check(tmp_path, {"path": path, "correct": True})[1].error
    assert isinstance(error, MachineError)
    assert error.expected == "about 1600.0 GB for 100000 million parameters"
    assert "teacher.correct: {adapter" in str(error.hint)
    error = check(tmp_path, {"path": path, "correct": {"adapter": {"r": 4}}})[1].error
    assert error is not None
    assert str(error.expected).startswith("about 600.0 GB")


def test_a_name_of_the_catalogue_that_leads_to_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a key")
    write_rows(tmp_path, 60)
    (finding,) = check(tmp_path, {"model": "claude-haiku", "correct": True})
    assert isinstance(finding.error, InputError)
    assert "its weights are not at hand" in finding.error.what
