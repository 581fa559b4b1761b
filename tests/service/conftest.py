"""A service of its own for each test: a home folder, a database (SQLite, or PostgreSQL), and jobs that are quick."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from loopback import LoopbackEndpoint, Messages, serve_in_thread
from pipeline.jobs import gold_answer, topic_rows, write_rows_file
from potstill.pipeline.folder import RunFolder
from potstill.service.client import MLClient
from potstill.service.settings import Settings, load_settings
from potstill.spec import JobSpec, parse_job
from service import postgres

ROWS = topic_rows(40)


def wrong_answer(messages: Messages) -> str:
    """A label, but not the row's: of the right form, so the first answers pass, and rejected when it is compared with gold."""
    gold = gold_answer(ROWS)(messages)
    return next(label for label in sorted({str(row["label"]) for row in ROWS}) if label != gold)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    programs = postgres.programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with postgres.server(programs) as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database of the test's own."""
    name = f"test_{time.monotonic_ns()}"
    admin = sa.create_engine(f"{postgres_server}/postgres".replace("://", "+psycopg://"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    yield f"{postgres_server}/{name}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"drop database {name} with (force)"))
    admin.dispose()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a home folder in it and no settings from elsewhere. Jobs do not outlive their test."""
    for name in ("POTSTILL_DATABASE_URL", "POTSTILL_RUNS", "POTSTILL_MAX_PARALLEL_JOBS", "POTSTILL_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POTSTILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for log in tmp_path.rglob("worker.log"):
        kill_all(log.parent)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(place: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Both databases, one after the other."""
    if request.param == "postgresql":
        monkeypatch.setenv("POTSTILL_DATABASE_URL", request.getfixturevalue("postgres_url"))
    return load_settings()


@pytest.fixture
def client(settings: Settings) -> MLClient:
    return MLClient(settings=settings)


@dataclass
class Teacher:
    """An endpoint on loopback whose answers a test chooses; the gold ones where it does not."""

    answer: Callable[[Messages], str] = field(default_factory=lambda: gold_answer(ROWS))
    asked: list[str] = field(default_factory=list)
    server: LoopbackEndpoint | None = None

    def __call__(self, messages: Messages) -> str:
        self.asked.append(messages[-1]["content"])
        return self.answer(messages)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.server is not None
        return {"model": "loopback", "endpoint": self.server.base_url, "concurrency": 4}


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    made = Teacher()
    with serve_in_thread(made) as server:
        made.server = server
        yield made


JobMaker = Callable[..., JobSpec]


@pytest.fixture
def make_job(place: Path, teacher: Teacher, tiny_student: Path) -> JobMaker:
    """Jobs over the same rows, which train for seconds."""
    data = write_rows_file(place / "rows.jsonl", ROWS)

    def make(name: str, **sections: Mapping[str, Any]) -> JobSpec:
        job: dict[str, Any] = {
            "name": name, "task": "classification", "teacher": teacher.spec, "student": {"path": str(tiny_student)},
            "data": {"train": str(data)}, "generation": {"max_tokens": 16}, "export": [],
            "training": {"learning_rate": 1e-2, "batch_size": 8, "num_epochs": 2, "early_stopping_patience": 0},
            "evaluation": {"models": ["distilled"], "concurrency": 1},
        }
        return parse_job({**job, **sections}, source="test", folder=place, default_name=name)

    return make


def processes_of(run_folder: Path) -> list[psutil.Process]:
    """The processes that hold a job of this run folder: those whose output goes to its worker.log, and their children."""
    log, found = str(run_folder / "worker.log"), []
    for process in psutil.process_iter():
        try:
            if str(Path(f"/proc/{process.pid}/fd/2").readlink()) == log:
                found.append(process)
        except OSError:
            continue
    return found


def kill_all(run_folder: Path) -> None:
    """What a power cut does to a job. Its lock is free once the last of its threads has closed its files."""
    for process in processes_of(run_folder):
        for member in [*process.children(recursive=True), process]:
            member.send_signal(signal.SIGKILL)
    wait_until(lambda: not processes_of(run_folder) and not RunFolder(run_folder).is_held())


def wait_until(condition: Callable[[], Any], limit_s: float = 120.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.05)


def has_event(run_folder: Path, kind: str, stage: str | None = None) -> bool:
    """Whether a run has come so far."""
    file = run_folder / "events.jsonl"
    events = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.is_file() else []
    return any(event["event"] == kind and stage in (None, event.get("stage")) for event in events)
