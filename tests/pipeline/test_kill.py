"""SIGKILL in the middle of generate, train and evaluate: the same command goes on, and nothing that was paid for is lost."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from loopback import serve_in_thread
from pipeline.jobs import events, gold_answer, run_cli, start_cli, topic_rows, write_job, write_rows_file

pytest.importorskip("xllamacpp")
ROWS = topic_rows(60)
TRAINING = {"num_epochs": 16}  # so long that a state is worth its while before the end
# What a run measures of the machine, not of the models.
OF_TIME = {
    "inference_time", "latency_p50", "latency_p95", "throughput_rps", "throughput_concurrency", "cost_per_1k_requests",
    "memory_bytes", "inference_time_reduction", "memory_reduction", "cost_reduction", "throughput_gain", "assumptions",
}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(part) for name, part in value.items() if name not in OF_TIME}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    """SIGKILL as soon as something is so; an error where the process ends before."""
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, f"it ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def steps_to_go_on_from(checkpoints: Path) -> set[int]:
    whole = (path.parent for path in checkpoints.glob("checkpoint-*/complete.json"))
    return {int(path.name.rpartition("-")[2]) for path in whole if (path / "optimizer.pt").exists()}


def test_killed_three_times(tiny_student: Path, tmp_path: Path) -> None:
    data = write_rows_file(tmp_path / "rows.jsonl", ROWS)
    with serve_in_thread(gold_answer(ROWS), delay_s=0.05) as server:
        job = str(write_job(tmp_path / "job.yaml", server.base_url, tiny_student, data, training=TRAINING))
        undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
        done = run_cli("run", job, "--runs", str(undisturbed))
        assert done.returncode == 0, done.stderr
        alone = len(server.requests)
        assert alone == len(ROWS)

        run = killed / "topics"
        command = ("run", job, "--runs", str(killed))
        kill_when(start_cli(*command), lambda: len(server.requests) >= alone + 20)
        in_flight = 4
        checkpoints = run / "student" / "checkpoints"
        kill_when(start_cli(*command), lambda: bool(steps_to_go_on_from(checkpoints)))
        before = max(steps_to_go_on_from(checkpoints))
        kill_when(start_cli(*command), lambda: (run / "evaluation" / "baseline.profile.json").is_file())
        teacher_measured = (run / "evaluation" / "teacher.jsonl").stat().st_mtime_ns
        done = run_cli(*command)
        assert done.returncode == 0, done.stderr
        # What was in flight at the kill may be asked again, what had come back never.
        assert len(server.requests) - alone <= len(ROWS) + in_flight

    assert (run / "evaluation" / "teacher.jsonl").stat().st_mtime_ns == teacher_measured
    steps = [event["done"] for event in events(run) if event.get("step") == "training"]
    starts = [index for index, event in enumerate(events(run)) if event["event"] == "started" and event["stage"] == "train"]
    resumed = [event["done"] for event in events(run)[starts[1] :] if event.get("step") == "training"]
    assert steps
    assert all(step > before for step in resumed)
    reports = [orjson.loads((folder / "topics" / "report.json").read_bytes()) for folder in (undisturbed, killed)]
    assert without_times(reports[0]) == without_times(reports[1])
