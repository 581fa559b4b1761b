"""Endpoints, hubs and machines that fail: exit code 1, a few lines, and what was done is kept."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from filelock import FileLock

from cli.conftest import Cli, Result, assert_told
from loopback import Fault, LoopbackEndpoint, hang, raw, serve_in_thread, status
from pipeline.jobs import MAIN, gold_answer, start_cli, topic_rows, write_job, write_rows_file
from potstill.inference import retry
from potstill.pipeline.checks import teacher as endpoint_check

ROWS = topic_rows(60)
HTML = b"<html><body>It works</body></html>"

pytestmark = pytest.mark.usefixtures("embedded_gguf")


def job_at(folder: Path, endpoint: str, student: Path) -> Path:
    return write_job(folder / "job.yaml", endpoint, student, write_rows_file(folder / "rows.jsonl", ROWS))


# Endpoints

REFUSALS = {
    "wrong key": (status(401, "Incorrect API key"), "api_key_env"),
    "no credit": (status(402, "Insufficient Balance"), "no credit"),
    "forbidden": (status(403, "no such luck"), "may not use this model"),
    "no such model": (status(404, "The model `loopback` does not exist"), "does not exist"),
    "no such page": (raw(b"<html>404</html>", code=404, content_type="text/html"), "ends in /v1"),
    "redirect": (Fault(302, b"", headers={"Location": "https://elsewhere/v1"}), "another address"),
    "out of quota": (
        raw(b'{"error": {"message": "quota", "code": "insufficient_quota"}}', code=429), "no credit left",
    ),
    "a web page": (raw(HTML, content_type="text/html"), "not JSON"),
    "no choices": (raw(b'{"object": "list", "data": []}'), "no choices"),
    "empty choices": (raw(b'{"choices": []}'), "no choices"),
    "not an object": (raw(b"[1]"), "no JSON object"),
    "bytes": (raw(b"\x1b[2J\xff\x00" * 9), "not JSON"),
    "broken": (status(500, "oops"), "oops"),
}


@pytest.fixture(params=REFUSALS)
def refusal(request: pytest.FixtureRequest) -> Iterator[tuple[LoopbackEndpoint, str]]:
    fault, says = REFUSALS[request.param]
    with serve_in_thread(lambda messages: "", fault=lambda messages, attempt: fault) as server:
        yield server, says


def test_an_endpoint_that_is_of_no_use(
    cli: Cli, work: Path, tiny_student: Path, refusal: tuple[LoopbackEndpoint, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    server, says = refusal
    job = job_at(work, server.base_url, tiny_student)
    found = cli("check", str(job))
    failed = found.out[found.out.index("FAIL") :]
    assert found.code == 1
    assert failed.startswith("FAIL endpoint: ")
    assert says in failed
    assert "\x1b" not in failed
    assert_told(cli("run", str(job)), server.base_url, says)


@pytest.mark.parametrize("retry_after", [None, 3600])
def test_check_does_not_wait_for_a_limit_to_be_lifted(
    cli: Cli, work: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch, retry_after: float | None
) -> None:
    monkeypatch.setattr(endpoint_check, "REFUSED_FOR_S", 0.2)
    refused = status(429, "slow down", retry_after=retry_after)
    with serve_in_thread(lambda messages: "", fault=lambda messages, attempt: refused) as server:
        done = cli("check", str(job_at(work, server.base_url, tiny_student)))
    assert done.code == 1
    assert "FAIL endpoint: the endpoint gave no answer for 0 s, or asks to wait longer" in done.out
    assert "slow down" in done.out


def test_check_does_not_wait_for_an_endpoint_that_is_silent(
    cli: Cli, work: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_check, "ANSWER_WITHIN_S", 0.2)
    with serve_in_thread(lambda messages: "", fault=lambda messages, attempt: hang()) as server:
        done = cli("check", str(job_at(work, server.base_url, tiny_student)))
    assert done.code == 1
    assert "FAIL endpoint: the endpoint sent no answer within 0.2 s" in done.out


def test_an_endpoint_without_tls_asked_by_it(cli: Cli, work: Path, tiny_student: Path) -> None:
    with serve_in_thread(lambda messages: "") as server:
        done = cli("check", str(job_at(work, server.base_url.replace("http:", "https:"), tiny_student)))
    assert done.code == 1
    assert "cannot be reached: [SSL" in done.out


def test_a_teacher_that_refuses_every_row(cli: Cli, work: Path, tiny_student: Path) -> None:
    with serve_in_thread(lambda messages: "", fault=lambda messages, attempt: status(400, "no temperature")) as server:
        done = cli("run", str(job_at(work, server.base_url, tiny_student)))
    assert_told(done, "0 of the first 16 answers", "no temperature")


# The hub


class Hub(BaseHTTPRequestHandler):
    """A hub that knows no model."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def with_hub(work: Path, address: str, offline: str, *arguments: str) -> Result:
    """The command in a process of its own: the hub's address is read once, at import."""
    environment = {**os.environ, "HF_HUB_OFFLINE": offline, "HF_ENDPOINT": address, "HF_HOME": str(work / "hub")}
    command = [sys.executable, "-c", MAIN, *arguments]
    done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, timeout=120)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_model_that_the_hub_does_not_have_or_cannot_be_asked_for(work: Path, tiny_student: Path, role: str) -> None:
    write_rows_file(work / "rows.jsonl", ROWS)
    models = {"teacher": f"{{path: {tiny_student}}}", "student": f"{{path: {tiny_student}}}", role: "org/none"}
    text = "task: classification\ndata: {train: rows.jsonl}\n" + "".join(f"{k}: {v}\n" for k, v in models.items())
    (work / "job.yaml").write_text(text)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        unknown = with_hub(work, f"http://127.0.0.1:{server.server_port}", "0", "run", "job.yaml")
        server.shutdown()
    assert_told(unknown, "cannot be fetched from the hub", "where: org/none", code=2)
    unreachable = with_hub(work, f"http://127.0.0.1:{server.server_port}", "0", "run", "job.yaml")
    assert_told(unreachable, "the hub cannot be reached", "Connection refused")
    assert_told(with_hub(work, "http://127.0.0.1:9", "1", "run", "job.yaml"), "HF_HUB_OFFLINE is set")
    assert not (work / "runs").exists()


# This machine


@pytest.mark.parametrize(("module", "extra"), [("torch", "train"), ("gguf", "export"), ("xllamacpp", "local")])
def test_a_part_that_is_not_installed(
    cli: Cli, work: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # what makes `import` and `find_spec` fail
    job = job_at(work, "http://127.0.0.1:9/v1", tiny_student)
    assert_told(cli("run", str(job)), f"pip install 'potstill[{extra}]'", code=2)
    assert not (work / "runs").exists()


def test_what_stops_before_training_needs_nothing_to_train(
    cli: Cli, work: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with serve_in_thread(gold_answer(ROWS)) as server:
        assert cli("run", str(job_at(work, server.base_url, tiny_student)), "--until", "generate").code == 0


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_file_in_place_of_a_run_folder(cli: Cli, work: Path, tiny_student: Path, kind: str) -> None:
    job = job_at(work, "http://127.0.0.1:9/v1", tiny_student)
    place = work / "runs" / "topics" if kind == "file" else work / "runs"
    place.parent.mkdir(exist_ok=True)
    place.write_text("here first")
    assert_told(cli("run", str(job)), "a run folder has to be", str(place.name), code=2)
    assert place.read_text() == "here first"


def test_a_run_that_another_process_works_on(cli: Cli, work: Path, tiny_student: Path) -> None:
    job = job_at(work, "http://127.0.0.1:9/v1", tiny_student)
    folder = work / "runs" / "topics"
    folder.mkdir(parents=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from filelock import FileLock\n"
         "with FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()", str(folder / ".lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert_told(cli("run", str(job)), "another process", "topics", code=2)
    finally:
        holder.communicate()
    with FileLock(folder / ".lock", timeout=0):
        pass


@pytest.fixture
def small_disk(work: Path) -> Iterator[Path]:
    """A real file system of 300 KB."""
    folder = work / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a file system of its own needs Linux and the rights of root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("left", [0, 8, 40, 200])
def test_a_full_disk(cli: Cli, work: Path, tiny_student: Path, small_disk: Path, left: int) -> None:
    """At the run folder, the rows, the journal, the student: with so many kilobytes left."""
    (small_disk / "others").write_bytes(bytes((300 - left) * 1024))
    with serve_in_thread(gold_answer(ROWS)) as server:
        job = job_at(work, server.base_url, tiny_student)
        done = cli("run", str(job), "--runs", str(small_disk))
        assert_told(done, "No space left on device", str(small_disk))
        seen = len(server.requests)
        if left == 40:
            (small_disk / "others").unlink()
            assert cli("run", str(job), "--runs", str(small_disk), "--until", "generate").code == 0
            assert 0 < seen < len(server.requests)
            assert server.repeats() <= 4  # those in flight when the disk was full


def test_a_disk_that_can_only_be_read(cli: Cli, work: Path, tiny_student: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    job = job_at(work, "http://127.0.0.1:9/v1", tiny_student)
    assert_told(cli("run", str(job), "--runs", str(small_disk)), "cannot be written", str(small_disk))


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of a process")
def test_a_limit_on_the_size_of_files(work: Path, tiny_student: Path) -> None:
    """What users without rights of root have of a full disk: every file ends at so many bytes."""
    with serve_in_thread(gold_answer(ROWS)) as server:
        job = job_at(work, server.base_url, tiny_student)
        process = start_cli(
            "run", str(job), cwd=work, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)),
        )
        out, err = process.communicate(timeout=120)
    assert_told(Result(process.returncode, out.decode(), err.decode()), "File too large", "topics")
