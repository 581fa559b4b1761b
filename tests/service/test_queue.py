"""The queue: each job runs once, in order, so many at once as the settings allow, whatever happens to the processes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from loopback import Messages
from potstill.errors import JobFailedError
from potstill.pipeline.events import EventLog
from potstill.pipeline.folder import RunFolder
from potstill.service import queue
from potstill.service.client import MLClient
from potstill.service.settings import load_settings
from service.conftest import ROWS, JobMaker, Teacher, has_event, kill_all, processes_of, wait_until, wrong_answer


def follow(client: MLClient, name: str) -> Future[list[str]]:
    """The lines that a job's stream prints, and the beginning of the error that it ends with."""

    def collect() -> list[str]:
        out = io.StringIO()
        with pytest.raises(JobFailedError) as error:
            client.jobs.stream(name, out)
        return [*out.getvalue().splitlines(), error.value.what.partition(":")[0]]

    return ThreadPoolExecutor(1).submit(collect)


@pytest.fixture
def mistaken(teacher: Teacher) -> Teacher:
    """A teacher whose answers are all wrong labels, so that a job ends, as failed, before anything heavy is loaded."""
    teacher.answer = wrong_answer
    return teacher


def create_from(processes: int, jobs: list[list[dict[str, object]]], place: Path) -> list[str]:
    """Create jobs from so many processes at once; their names in the order in which they were queued by each."""
    started = []
    for number in range(processes):
        file = place / f"jobs-{number}.json"
        file.write_text(json.dumps(jobs[number]))
        command = [sys.executable, str(Path(__file__).with_name("creator.py")), str(file)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    outputs = [process.communicate(timeout=240) for process in started]
    assert [(process.returncode, error) for process, (_, error) in zip(started, outputs, strict=True)] == [(0, "")] * processes
    return [name for out, _ in outputs for name in out.split()]


def test_twenty_jobs_from_four_processes(client: MLClient, mistaken: Teacher, make_job: JobMaker, place: Path) -> None:
    names = [[f"job-{process}-{number}" for number in range(5)] for process in range(4)]
    jobs = [[make_job(name).model_dump(mode="json") for name in part] for part in names]
    created = create_from(4, jobs, place)
    everyone = {name for part in names for name in part}
    assert set(created) == everyone
    order = [job.name for job in client.jobs.list()]
    told = follow(client, order[-1])
    listed = client.jobs.list()
    while not all(job.ended for job in listed):
        listed = client.jobs.list()
        assert [job.name for job in listed] == order
        assert sum(job.status == "Running" for job in listed) <= 1
    assert set(order) == everyone
    assert len(order) == len(everyone)
    assert told.result(timeout=60)[0].startswith("queued, ")
    assert told.result()[-1] == f"the job '{order[-1]}' failed"
    # Each ran once: one start, and one request a row that is not held out.
    for job in listed:
        events = [event["event"] for event in EventLog(RunFolder(job.run_folder).events).read()]
        assert (job.status, events.count("job")) == ("Failed", 1), job
        assert "training rows were kept" in (job.error or {})["what"]
    assert set(Counter(mistaken.asked).values()) == {len(everyone)}
    # In order: one at a time, each started after the one before it had ended, and each process's own jobs in their order.
    starts = [(job.started_at, job.finished_at) for job in listed]
    assert all(later[0] >= earlier[1] for earlier, later in pairwise(starts))
    for part in names:
        assert [name for name in order if name in part] == part


def test_so_many_at_once_as_the_settings_allow(
    place: Path, teacher: Teacher, make_job: JobMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POTSTILL_MAX_PARALLEL_JOBS", "2")
    client = MLClient(settings=load_settings())
    release: list[bool] = []
    teacher.answer = lambda messages: _wait_for(release, messages)
    for name in ("one", "two", "three"):
        client.jobs.create_or_update(make_job(name))
    wait_until(lambda: client.jobs.get("two").status == "Running")
    assert [client.jobs.get(name).status for name in ("one", "two", "three")] == ["Running", "Running", "Queued"]
    assert client.jobs.get("three").place == 0
    release.append(True)
    wait_until(lambda: client.jobs.get("three").ended)
    assert [job.status for job in client.jobs.list()] == ["Failed"] * 3


def _wait_for(release: list[bool], messages: Messages) -> str:
    wait_until(lambda: release)
    return wrong_answer(messages)


def test_a_queued_job_is_cancelled_before_it_begins(client: MLClient, teacher: Teacher, make_job: JobMaker) -> None:
    release: list[bool] = []
    teacher.answer = lambda messages: _wait_for(release, messages)
    client.jobs.create_or_update(make_job("first"))
    waiting = client.jobs.create_or_update(make_job("second"))
    assert (waiting.status, waiting.place) == ("Queued", 1 if client.jobs.get("first").status == "Queued" else 0)
    assert client.jobs.cancel("second").status == "Canceled"
    wait_until(lambda: not processes_of(waiting.run_folder))
    release.append(True)
    wait_until(lambda: client.jobs.get("first").ended)
    assert client.jobs.get("second").status == "Canceled"
    assert not (waiting.run_folder / "events.jsonl").exists()


def test_jobs_that_wait_survive_a_reboot_in_their_order(
    client: MLClient, teacher: Teacher, make_job: JobMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "START_GRACE", timedelta(seconds=10))  # a process takes some seconds to start beside others
    release: list[bool] = []
    teacher.answer = lambda messages: _wait_for(release, messages)
    names = ["first", "second", "third"]
    jobs = [client.jobs.create_or_update(make_job(name)) for name in names]
    wait_until(lambda: client.jobs.get("first").status == "Running")
    wait_until(lambda: all(RunFolder(job.run_folder).is_held() for job in jobs))
    for job in reversed(jobs):
        kill_all(job.run_folder)
    release.append(True)
    # Whoever looks at the queue wakes it: the job that ran has failed, those that waited go on.
    assert client.jobs.get("first").status == "Failed"
    wait_until(lambda: [client.jobs.get(name).ended for name in names] == [True] * 3)
    assert "killed" in (client.jobs.get("first").error or {})["what"]
    second, third = client.jobs.get("second"), client.jobs.get("third")
    assert "training rows were kept" in (second.error or {})["what"]
    assert third.started_at >= second.finished_at


def test_a_job_whose_process_never_begins_fails_in_the_end(
    client: MLClient, mistaken: Teacher, make_job: JobMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "START_GRACE", timedelta(seconds=0))
    monkeypatch.setattr(queue.sys, "executable", "/bin/false")
    client.jobs.create_or_update(make_job("hopeless"))
    wait_until(lambda: client.jobs.get("hopeless").ended, limit_s=30)
    failed = client.jobs.get("hopeless")
    assert failed.status == "Failed"
    assert "before it begins" in (failed.error or {})["what"]
    assert str(failed.run_folder) in (failed.error or {})["where"]


def test_a_queued_job_takes_new_settings(client: MLClient, teacher: Teacher, make_job: JobMaker) -> None:
    release: list[bool] = []
    teacher.answer = lambda messages: _wait_for(release, messages)
    client.jobs.create_or_update(make_job("first"))
    client.jobs.create_or_update(make_job("second"))
    changed = client.jobs.create_or_update(make_job("second", generation={"max_tokens": 17}))
    assert changed.status == "Queued"
    assert len(client.jobs.list()) == 2
    release.append(True)
    wait_until(lambda: client.jobs.get("second").ended)
    assert has_event(changed.run_folder, "failed")
    assert teacher.server is not None
    assert [request.body["max_tokens"] for request in teacher.server.requests].count(17) == len(set(teacher.asked))


def test_rows_are_asked_once(mistaken: Teacher, make_job: JobMaker, client: MLClient) -> None:
    """What the first test counts on: a job asks for each of its rows but the held-out ones with gold answers."""
    client.jobs.create_or_update(make_job("alone"))
    wait_until(lambda: client.jobs.get("alone").ended)
    assert len(mistaken.asked) == len(set(mistaken.asked)) == len(ROWS) - 8
