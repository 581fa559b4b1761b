"""An endpoint that does not answer, and the key that is shown nowhere."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Cli
from loopback import Messages, hang, serve_in_thread, status
from pipeline.jobs import start_cli, topic_rows, write_job, write_rows_file

ROWS = topic_rows(40)
KEY = "sk-loopback-4f1c9a7733e05d"
KEY_VARIABLE = "LOOPBACK_KEY"

pytestmark = pytest.mark.usefixtures("embedded_gguf")


@pytest.fixture
def closed_port() -> str:
    """The address of a port at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@contextmanager
def interruptible() -> Iterator[None]:
    """What is started inside heeds SIGINT, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def answer(messages: Messages) -> str:
    """The label of a row, and something to whatever else is asked."""
    return next((row["label"] for row in ROWS if row["text"] == messages[-1]["content"]), "An answer.")


def job_at(folder: Path, endpoint: str, student: Path, **teacher: Any) -> str:
    data = write_rows_file(folder / "rows.jsonl", ROWS)
    return str(write_job(folder / "job.yaml", endpoint, student, data, teacher={"api_key_env": KEY_VARIABLE, **teacher}))


def files_with(text: str, folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_check_says_that_an_endpoint_does_not_answer(
    cli: Cli, work: Path, closed_port: str, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    job = job_at(work, closed_port, tiny_student)
    done = cli("check", job)
    assert done.code == 1
    failed = [line for line in done.out.splitlines() if line.startswith("FAIL")]
    assert failed == ["FAIL endpoint: the endpoint does not answer"]
    assert f"where: {closed_port}" in done.out
    assert "cannot be reached" in done.out
    found = {finding["subject"]: finding for finding in json.loads(cli("check", job, "--json").out)}
    assert found["endpoint"]["error"]["error"] == "EndpointError"
    assert found["data"]["ok"]
    assert cli("check", job, "--offline").code == 0


def test_a_wrong_input_outweighs_an_endpoint_that_does_not_answer(
    cli: Cli, work: Path, closed_port: str, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    job = job_at(work, closed_port, tiny_student)
    (work / "rows.jsonl").write_text("no JSON\n")
    assert cli("check", job).code == 2


def test_the_key_is_sent_and_written_nowhere(
    cli: Cli, work: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with serve_in_thread(answer) as server:
        job = job_at(work, server.base_url, tiny_student)
        outputs = [cli("check", job), cli("run", job, "--until", "generate"), cli("check", job, "--json")]
        assert [done.code for done in outputs] == [0, 0, 0], outputs
        assert all(request.headers["Authorization"] == f"Bearer {KEY}" for request in server.requests)
        assert len(server.requests) > len(ROWS) // 2
    assert (work / "runs" / "topics" / "generated" / "train.jsonl").is_file()
    assert not any(KEY in done.out + done.err for done in outputs)
    assert files_with(KEY, work) == []
    assert files_with(KEY_VARIABLE, work)  # the variable's name is no secret, and the search finds what is there


def test_a_key_that_the_endpoint_sends_back_is_struck_out(
    cli: Cli, work: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with serve_in_thread(answer, fault=lambda messages, attempt: status(401, f"wrong key {KEY}")) as server:
        job = job_at(work, server.base_url, tiny_student)
        outputs = [cli("check", job), cli("run", job), cli("run", job, "--json")]
    assert [done.code for done in outputs] == [1, 1, 1]
    assert "401" in outputs[1].err
    assert len(outputs[1].err.partition("error: ")[2].splitlines()) <= 6
    assert json.loads(outputs[2].out)["error"] == "EndpointError"
    assert not any(KEY in done.out + done.err for done in outputs)
    assert files_with(KEY, work) == []


def test_ctrl_c_stops_with_a_word(work: Path, tiny_student: Path) -> None:
    with serve_in_thread(answer, fault=lambda messages, attempt: hang()) as server:
        job = write_job(work / "job.yaml", server.base_url, tiny_student, write_rows_file(work / "rows.jsonl", ROWS))
        with interruptible():
            process = start_cli("run", str(job), stderr=subprocess.PIPE, cwd=work)
        deadline = time.monotonic() + 60
        while not server.requests:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert shown.decode().splitlines()[-1].startswith("stopped; what was done is kept")
    assert b"Traceback" not in shown
