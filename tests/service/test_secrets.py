"""A key and a password, used all the way through a job: then they are searched for wherever something was written."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from potstill.service.client import MLClient
from potstill.service.database import Database
from potstill.service.settings import load_settings
from service.conftest import JobMaker, Teacher, wait_until
from service.postgres import PASSWORD

KEY = "sk-secret-c0ffee-4f1c9a7733e05d"
VARIABLE = "SECRET_TEACHER_KEY"


def files_with(text: str, folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_no_secret_is_written_or_shown(
    place: Path, postgres_url: str, teacher: Teacher, make_job: JobMaker, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv("POTSTILL_DATABASE_URL", postgres_url)
    client = MLClient(settings=load_settings())
    arguments: set[str] = set()

    def look_at_the_process_list() -> None:
        for process in psutil.process_iter(["cmdline"]):
            arguments.update(process.info["cmdline"] or [])

    client.jobs.create_or_update(make_job("secretive", teacher={**teacher.spec, "api_key_env": VARIABLE}))
    wait_until(lambda: look_at_the_process_list() or client.jobs.get("secretive").ended)
    client.jobs.stream("secretive")
    results = client.models.evaluate("loopback", place / "rows.jsonl", ["accuracy"])
    assert teacher.server is not None
    assert {request.headers["Authorization"] for request in teacher.server.requests} == {f"Bearer {KEY}"}
    assert any("potstill.service.worker" in argument for argument in arguments)
    out, err = capfd.readouterr()
    said = "\n".join([out, err, repr(client.jobs.get("secretive")), repr(results), repr(client.settings), *arguments])
    for secret in (KEY, PASSWORD):
        assert secret not in said
        assert files_with(secret, place) == []
    assert files_with(VARIABLE, place)  # the variable's name is no secret, and the search finds what is there
    with Database(client.settings).session() as session:
        rows = [tuple(row) for table in ("jobs", "models") for row in session.execute(sa.text(f"select * from {table}"))]
    assert VARIABLE in str(rows)
    assert KEY not in str(rows)
    assert PASSWORD not in str(rows)
