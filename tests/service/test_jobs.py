"""A job's life: created, run, followed, stopped, killed, and on again."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from loopback import Messages
from pipeline.jobs import gold_answer, run_cli
from potstill.errors import InputError, JobFailedError
from potstill.pipeline.folder import RunFolder
from potstill.service.client import MLClient
from potstill.service.settings import load_settings
from service.conftest import ROWS, JobMaker, Teacher, has_event, kill_all, processes_of, wait_until, wrong_answer

# What a job does in training does not depend on where it is recorded; the other tests run on both databases.
ON_SQLITE = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)


def statuses_until_end(client: MLClient, name: str) -> list[str]:
    """Every status that a job shows on its way, each once."""
    seen: list[str] = []
    wait_until(lambda: seen.append(client.jobs.get(name).status) or client.jobs.get(name).ended)
    return list(dict.fromkeys([*seen, client.jobs.get(name).status]))


def test_a_job_runs_on_its_own_and_leaves_its_models(client: MLClient, teacher: Teacher, make_job: JobMaker) -> None:
    created = client.jobs.create_or_update(make_job("topics"))
    assert created.status == "Queued"
    assert statuses_until_end(client, "topics") in (["Queued", "Running", "Completed"], ["Running", "Completed"])
    out = io.StringIO()
    client.jobs.stream("topics", out)
    lines = out.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d run topics", lines[0])
    assert lines[-1].endswith(" done")
    assert any("validation_loss" in line for line in lines)
    assert client.jobs.log("topics") == lines
    assert [(model.name.rpartition("-")[2], model.version) for model in client.models.list()][1:] == [
        ("baseline", 1), ("distilled", 1)
    ]
    assert client.models.list()[0].name == "loopback"
    # Once more with another setting: the same folder, nothing asked again, the same models.
    asked = len(teacher.asked)
    client.jobs.create_or_update(make_job("topics", evaluation={"models": ["distilled"], "concurrency": 2}))
    wait_until(lambda: client.jobs.get("topics").ended)
    assert client.jobs.get("topics").status == "Completed"
    assert len(teacher.asked) == asked
    assert len(client.models.list()) == 3


def test_wrong_input_is_told_at_once_and_leaves_nothing(client: MLClient, make_job: JobMaker, place: Path) -> None:
    job = make_job("wrong", student={"model": "nowhere-at-all"})
    with pytest.raises(InputError, match="nowhere-at-all"):
        client.jobs.create_or_update(job)
    assert client.jobs.list() == []
    assert not (place / "runs").exists()


def test_names_that_nobody_has(client: MLClient, teacher: Teacher, make_job: JobMaker) -> None:
    teacher.answer = wrong_answer
    client.jobs.create_or_update(make_job("support"))
    for ask in (client.jobs.get, client.jobs.cancel, client.jobs.archive, client.jobs.stream):
        with pytest.raises(InputError, match="no job is called 'suport'") as error:
            ask("suport")
        assert error.value.hint == "did you mean support?"
    wait_until(lambda: client.jobs.get("support").ended)
    with pytest.raises(InputError, match="has ended already"):
        client.jobs.cancel("support")


def test_archived_jobs_are_not_listed(client: MLClient, teacher: Teacher, make_job: JobMaker) -> None:
    teacher.answer = wrong_answer
    client.jobs.create_or_update(make_job("support"))
    wait_until(lambda: client.jobs.get("support").ended)
    client.jobs.archive("support")
    assert client.jobs.list() == []
    assert [job.name for job in client.jobs.list(archived=True)] == ["support"]
    client.jobs.restore("support")
    assert [job.name for job in client.jobs.list()] == ["support"]


@ON_SQLITE
def test_a_failed_job_says_why_and_goes_on(client: MLClient, teacher: Teacher, make_job: JobMaker) -> None:
    teacher.answer = wrong_answer
    client.jobs.create_or_update(make_job("support"))
    wait_until(lambda: client.jobs.get("support").ended)
    failed = client.jobs.get("support")
    assert (failed.status, failed.stage) == ("Failed", "curate")
    with pytest.raises(JobFailedError, match="16 are needed"):
        client.jobs.stream("support", io.StringIO())
    # Mended, under the same name: another temperature asks anew, in the same folder.
    teacher.answer = gold_answer(ROWS)
    client.jobs.create_or_update(make_job("support", generation={"max_tokens": 16, "temperature": 0.0}))
    wait_until(lambda: has_event(failed.run_folder, "started", "train"))
    assert client.jobs.get("support").status == "Running"
    assert client.jobs.cancel("support").status == "Canceled"


LONG = {"learning_rate": 1e-3, "batch_size": 2, "num_epochs": 400, "early_stopping_patience": 0}


@ON_SQLITE
def test_cancelled_in_training_it_keeps_a_checkpoint_and_goes_on(
    client: MLClient, teacher: Teacher, make_job: JobMaker
) -> None:
    job = client.jobs.create_or_update(make_job("long", training=LONG))
    checkpoints = job.run_folder / "student" / "checkpoints"
    wait_until(lambda: checkpoints.is_dir() and any(checkpoints.glob("checkpoint-*/complete.json")))
    running = client.jobs.get("long")
    assert (running.status, running.stage) == ("Running", "train")
    canceled = client.jobs.cancel("long")
    assert canceled.status == "Canceled"
    wait_until(lambda: not processes_of(job.run_folder))
    assert has_event(job.run_folder, "canceled")
    assert not has_event(job.run_folder, "failed")
    newest = max(int(path.parent.name.rpartition("-")[2]) for path in checkpoints.glob("*/complete.json"))
    steps = [int(line.partition("training: ")[2].partition("/")[0]) for line in client.jobs.log("long") if "training: " in line]
    assert newest >= max(steps)
    asked = len(teacher.asked)
    client.jobs.create_or_update(make_job("long", training=LONG))
    wait_until(lambda: any("training: " in line for line in client.jobs.log("long")))
    first = next(line for line in client.jobs.log("long") if "training: " in line)
    assert int(first.partition("training: ")[2].partition("/")[0]) > newest
    assert len(teacher.asked) == asked
    client.jobs.cancel("long")


@ON_SQLITE
def test_cancelled_while_the_teacher_answers(client: MLClient, teacher: Teacher, make_job: JobMaker) -> None:
    released: list[bool] = []

    def slowly(messages: Messages) -> str:
        if len(set(teacher.asked)) > 12:
            wait_until(lambda: released)
        return gold_answer(ROWS)(messages)

    teacher.answer = slowly
    job = client.jobs.create_or_update(make_job("slow"))
    wait_until(lambda: len(teacher.asked) > 12)
    with_request = client.jobs.get("slow")
    assert with_request.status == "Running"
    released.append(True)
    assert client.jobs.cancel("slow").status == "Canceled"
    wait_until(lambda: not processes_of(job.run_folder))
    done = run_cli("run", str(job.run_folder), "--until", "curate")
    assert done.returncode == 0, done.stderr
    assert len(teacher.asked) == len(set(teacher.asked))


@ON_SQLITE
def test_killed_it_has_failed_at_once_and_goes_on_where_it_was(
    client: MLClient, teacher: Teacher, make_job: JobMaker
) -> None:
    job = client.jobs.create_or_update(make_job("killed"))
    wait_until(lambda: has_event(job.run_folder, "started", "train"))
    assert client.jobs.get("killed").status == "Running"
    kill_all(job.run_folder)
    failed = client.jobs.get("killed")
    assert (failed.status, failed.stage) == ("Failed", "train")
    assert "killed" in (failed.error or {})["what"]
    assert f"potstill run {job.run_folder}" in (failed.error or {})["hint"]
    asked = len(teacher.asked)
    done = run_cli("run", str(job.run_folder))
    assert done.returncode == 0, done.stderr
    assert len(teacher.asked) == asked
    assert client.jobs.get("killed").status == "Completed"
    assert len(client.jobs.list()) == 1


@ON_SQLITE
def test_runs_of_the_command_line_are_jobs_too(client: MLClient, teacher: Teacher, make_job: JobMaker, place: Path) -> None:
    from potstill.spec import dump_job

    (place / "mine.yaml").write_text(dump_job(make_job("mine")))
    done = run_cli("run", "mine.yaml", "--until", "curate")
    assert done.returncode == 0, done.stderr
    job = client.jobs.get("mine")
    assert (job.status, job.stage, job.run_folder) == ("Canceled", "curate", place / "runs" / "mine")
    done = run_cli("run", "mine.yaml", "--runs", "others", "--until", "prepare")
    assert done.returncode == 0, done.stderr
    assert [job.name for job in client.jobs.list()] == ["mine", "mine-2"]


def test_a_database_that_is_lost_is_made_again_from_the_folders(
    client: MLClient, teacher: Teacher, make_job: JobMaker, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher.answer = lambda messages: "I'm sorry, but I can't help with that."
    for name in ("one", "two"):
        client.jobs.create_or_update(make_job(name))
    wait_until(lambda: all(job.ended for job in client.jobs.list()))
    before = [(job.name, job.status, job.error, job.stage) for job in map(client.jobs.get, ("one", "two"))]
    monkeypatch.setenv("POTSTILL_DATABASE_URL", f"sqlite:///{place / 'new.db'}")
    fresh = MLClient(settings=load_settings())
    assert fresh.jobs.list() == []
    imported = fresh.jobs.import_runs(place / "runs")
    assert [(job.name, job.status) for job in imported] == [(name, status) for name, status, *_ in before]
    assert [(job.name, job.error) for job in fresh.jobs.list()] == [(name, error) for name, _, error, _ in before]
    assert [job.name for job in fresh.jobs.import_runs(place / "runs" / "one")] == ["one"]
    assert len(fresh.jobs.list()) == 2
    # A folder that was moved keeps its name.
    shutil.move(place / "runs" / "two", place / "elsewhere")
    assert [(job.name, job.run_folder) for job in fresh.jobs.import_runs(place / "elsewhere")] == [("two", place / "elsewhere")]
    with pytest.raises(InputError, match="no run is in this folder"):
        fresh.jobs.import_runs(place / "home")
    with pytest.raises(InputError, match="no such folder"):
        fresh.jobs.import_runs(place / "nowhere")


def test_a_run_goes_on_without_a_database(
    teacher: Teacher, make_job: JobMaker, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from potstill.spec import dump_job

    (place / "home").mkdir()
    (place / "home" / "potstill.db").write_bytes(b"damaged" * 1000)
    (place / "mine.yaml").write_text(dump_job(make_job("mine")))
    done = run_cli("run", "mine.yaml", "--until", "curate")
    assert done.returncode == 0, done.stderr
    assert "no list of jobs will show this run: the database file is damaged" in done.stderr
    listed = run_cli("jobs", "list")
    assert listed.returncode == 1
    assert len(listed.stderr.splitlines()) <= 6
    assert "potstill jobs import" in listed.stderr


def test_a_job_that_runs_cannot_be_changed_or_run_twice(
    client: MLClient, teacher: Teacher, make_job: JobMaker
) -> None:
    release: list[Any] = []

    def held(messages: Messages) -> str:
        wait_until(lambda: release)
        return "I'm sorry, but I can't help with that."

    teacher.answer = held
    job = client.jobs.create_or_update(make_job("busy"))
    wait_until(lambda: client.jobs.get("busy").status == "Running")
    with pytest.raises(InputError, match="is running"):
        client.jobs.create_or_update(make_job("busy"))
    with pytest.raises(InputError, match="has not ended"):
        client.jobs.archive("busy")
    done = run_cli("run", str(job.run_folder))
    assert done.returncode == 2
    assert "another process" in done.stderr
    assert RunFolder(job.run_folder).is_held()
    release.append(True)
    wait_until(lambda: client.jobs.get("busy").ended)
