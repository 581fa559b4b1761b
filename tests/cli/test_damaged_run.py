"""A run folder that somebody or something damaged: what can be done again is, what cannot is named."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from cli.conftest import Cli, assert_told
from loopback import serve_in_thread
from pipeline.jobs import gold_answer, start_cli, topic_rows, write_job, write_rows_file

ROWS = topic_rows(60)

pytestmark = pytest.mark.usefixtures("embedded_gguf")


@pytest.fixture(scope="module")
def generated(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a job and its run, up to its curated rows."""
    folder = tmp_path_factory.mktemp("generated")
    with serve_in_thread(gold_answer(ROWS)) as server:
        data = write_rows_file(folder / "rows.jsonl", ROWS)
        job = write_job(folder / "job.yaml", server.base_url, tiny_student, data)
        process = start_cli("run", str(job), "--until", "curate", cwd=folder, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()
        yield folder


@pytest.fixture
def run(work: Path, generated: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(generated / "runs" / "topics", work / "topics"))


def test_a_damaged_journal(cli: Cli, run: Path) -> None:
    segment = next((run / "journal").rglob("*.seg"))
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.write_bytes(content)
    (run / "generated" / "train.jsonl").unlink()
    assert_told(cli("run", str(run), "--until", "curate"), "record of the journal is damaged", f"{segment}, byte ")


def test_damaged_rows(cli: Cli, run: Path) -> None:
    (run / "rows" / "train.jsonl").write_text('{"id": 1')
    assert_told(cli("run", str(run), "--until", "curate"), "is not what was written", "train.jsonl, line 1", "delete it")
    (run / "rows" / "train.jsonl").unlink()
    assert cli("run", str(run), "--until", "curate").code == 0


@pytest.mark.parametrize("content", [b"", b"\xff\x00garbage\n", b'{"event": "finished", "stage": "prepare"}\n[]\n5\n'])
def test_damaged_events_only_cost_time(cli: Cli, run: Path, generated: Path, content: bytes) -> None:
    """What is not told as done is done again; no reply is asked for again, because the journal has it."""
    (run / "events.jsonl").write_bytes(content)
    assert cli("run", str(run), "--until", "curate").code == 0
    finished = [e for e in map(_event, (run / "events.jsonl").read_bytes().splitlines()) if e.get("event") == "finished"]
    assert [event["stage"] for event in finished if "fingerprint" in event] == ["prepare", "generate", "curate"]


def _event(line: bytes) -> dict[str, str]:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}


@pytest.mark.parametrize(("change", "says"), [("task: nli", "premise"), ("task: poetry", "one of nli")])
def test_a_job_that_was_changed_into_another(cli: Cli, run: Path, change: str, says: str) -> None:
    job = run / "job.yaml"
    job.write_text(job.read_text().replace("task: classification", change))
    assert_told(cli("run", str(run)), says, code=2)
