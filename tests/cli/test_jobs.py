"""`potstill jobs` and `potstill models`, for a person and for a program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.conftest import Cli
from loopback import serve_in_thread
from pipeline.jobs import gold_answer, topic_rows, write_job, write_rows_file

ROWS = topic_rows(40)
QUICK = {"export": {"formats": []}, "evaluation": {"models": ["distilled"]}, "training": {"num_epochs": 1}}


@pytest.fixture(autouse=True)
def _home(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_HOME", str(work / "home"))


@pytest.fixture
def job(work: Path, tiny_student: Path) -> Iterator[Path]:
    """A job file whose teacher answers while the test runs."""
    data = write_rows_file(work / "rows.jsonl", ROWS)
    with serve_in_thread(gold_answer(ROWS)) as server:
        yield write_job(work / "job.yaml", server.base_url, tiny_student, data, **QUICK)


def test_nothing_yet(cli: Cli) -> None:
    assert "no jobs yet" in cli("jobs", "list").out
    assert "no models yet" in cli("models", "list").out
    assert json.loads(cli("jobs", "list", "--json").out) == json.loads(cli("models", "list", "--json").out) == []


def test_names_that_nobody_has(cli: Cli) -> None:
    for arguments in (["jobs", "show", "x"], ["jobs", "logs", "x"], ["jobs", "cancel", "x"], ["models", "show", "x"]):
        done = cli(*arguments)
        assert (done.code, done.out) == (2, "")
        assert len(done.err.splitlines()) <= 6
        assert "'x'" in done.err
        assert json.loads(cli(*arguments, "--json").out if arguments[1] != "logs" else "{}") is not None
    assert cli("jobs", "import", "nowhere").code == 2


def test_a_run_is_listed_shown_and_told(cli: Cli, job: Path, work: Path) -> None:
    assert cli("run", str(job)).code == 0
    listed = cli("jobs", "list")
    header, line = listed.out.splitlines()
    assert header.split()[:3] == ["name", "status", "task"]
    assert line.split()[:3] == ["topics", "Completed", "classification"]
    (entry,) = json.loads(cli("jobs", "list", "--json").out)
    assert (entry["name"], entry["status"], entry["run_folder"]) == ("topics", "Completed", str(work / "runs" / "topics"))
    shown = cli("jobs", "show", "topics").out
    assert "Completed" in shown
    assert str(work / "runs" / "topics") in shown
    assert json.loads(cli("jobs", "show", "topics", "--json").out) == entry
    log = cli("jobs", "logs", "topics").out.splitlines()
    assert log[0].endswith("run topics")
    assert log[-1].endswith("done")
    assert cli("jobs", "logs", "topics", "--follow").out.splitlines() == log
    assert "has ended already" in cli("jobs", "cancel", "topics").err


def test_its_models_are_listed_and_shown(cli: Cli, job: Path, tiny_student: Path) -> None:
    assert cli("run", str(job)).code == 0
    name = f"{tiny_student.name}-distilled"
    models = json.loads(cli("models", "list", "--json").out)
    assert [model["name"] for model in models] == ["loopback", f"{tiny_student.name}-baseline", name]
    assert len(cli("models", "list", "--name", name).out.splitlines()) == 2
    shown = cli("models", "show", name).out
    assert "accuracy:" in shown
    assert json.loads(cli("models", "show", name, "--json").out) == models[-1]
    assert "version 2" in cli("models", "show", name, "--version", "2").err


def test_a_run_that_stopped_says_why(cli: Cli, job: Path, work: Path) -> None:
    (work / "rows.jsonl").write_text((work / "rows.jsonl").read_text().replace('"label"', '"label_"'))
    assert cli("run", str(job)).code == 2
    assert "no jobs yet" in cli("jobs", "list").out
    write_rows_file(work / "rows.jsonl", ROWS)
    assert cli("run", str(job), "--until", "generate").code == 0
    (work / "runs" / "topics" / "generated" / "train.jsonl").write_text("")
    done = cli("run", str(work / "runs" / "topics"), "--until", "curate")
    assert done.code == 0, done.err
    assert "Canceled" in cli("jobs", "list").out


def test_folders_are_imported(cli: Cli, job: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("run", str(job), "--until", "curate").code == 0
    monkeypatch.setenv("POTSTILL_HOME", str(work / "another"))
    assert "no jobs yet" in cli("jobs", "list").out
    imported = cli("jobs", "import", "runs")
    assert imported.out == f"topics: Canceled, {work / 'runs' / 'topics'}\n"
    assert cli("jobs", "list").out.splitlines()[1].startswith("topics")
