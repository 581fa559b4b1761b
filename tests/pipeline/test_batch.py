"""A job whose teacher is asked in batches, killed at the worst moment: nothing is handed in twice, nothing is missing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from batch_servers import Batches, OpenAIBatchServer
from loopback import Fault, hang, serve_in_thread
from pipeline.jobs import gold_answer, topic_rows, write_job, write_rows_file
from potstill.inference import Journal

# The command, with a batch API that is looked at more often than in life.
_QUICK = """
import functools
from potstill.inference import batch
batch.Pace = functools.partial(batch.Pace, linger_s=0.2, poll_s=0.05)
from potstill.cli import main
main()
"""


def run(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _QUICK, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_that_is_killed_while_it_hands_in_finds_its_batch_again(tmp_path: Path, tiny_student: Path) -> None:
    rows = topic_rows(48)
    data = write_rows_file(tmp_path / "rows.jsonl", rows)
    teacher = {"batch": True, "concurrency": None}
    with serve_in_thread(gold_answer(rows), OpenAIBatchServer) as server:
        job = write_job(tmp_path / "topics.yaml", server.base_url, tiny_student, data, teacher=teacher)
        arguments = ("run", str(job), "--runs", str(tmp_path / "runs"), "--until", "generate")
        server.after = lambda call, number: hang() if call == "POST batches" else None
        killed = run(*arguments)
        wait_until(lambda: bool(server.batches), killed)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        server.after = nothing
        again = run(*arguments)
        printed, _ = again.communicate(timeout=200)
    assert again.returncode == 0, printed
    assert "found again" in printed
    check_everything_once(server, tmp_path / "runs" / "topics", rows=48)


def nothing(call: str, number: int) -> Fault | None:
    return None


def check_everything_once(server: Batches, folder: Path, *, rows: int) -> None:
    handed_in = [key for batch in server.batches for key in batch.lines]
    assert len(handed_in) == len(set(handed_in))
    answered = [orjson.loads(line) for split in ("train", "validation")
                for line in (folder / "generated" / f"{split}.jsonl").read_bytes().splitlines()]
    assert all(row["messages"][-1]["content"] == row["reference"] for row in answered)
    assert len(answered) == len(handed_in) <= rows
    with Journal(folder / "journal" / "generate") as journal:
        stats = journal.stats()
    assert (stats.intents, stats.outcomes, stats.unresolved) == (len(handed_in), len(handed_in), 0)
