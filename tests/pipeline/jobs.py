"""Small whole jobs for tests: topics of support questions, a loopback teacher that knows them, a tiny student."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import yaml

from loopback import Messages

TOPICS = 7
MAIN = "from potstill.cli import main; main()"


def topic_rows(count: int) -> list[dict[str, Any]]:
    """The first questions of the quickstart's first topics, labelled with their topic."""
    lines = (files("potstill.quickstart") / "train.jsonl").read_bytes().splitlines()
    rows: list[dict[str, Any]] = []
    topics: list[str] = []
    for line in map(orjson.loads, lines):
        topic = line["id"].rpartition("-")[0]
        if topic not in topics:
            topics.append(topic)
        if topics.index(topic) < TOPICS:
            rows.append({"text": line["messages"][-1]["content"], "label": topic})
    assert len(rows) >= count
    return rows[:count]


def gold_answer(rows: list[dict[str, Any]]) -> Callable[[Messages], str]:
    """A teacher that knows the label of each row."""
    labels = {row["text"]: row["label"] for row in rows}
    return lambda messages: labels[messages[-1]["content"]]


def write_rows_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    return path


def write_job(path: Path, endpoint: str, student: Path, data: Path, **sections: Mapping[str, Any]) -> Path:
    """A classification job that trains for a few seconds."""
    job: dict[str, Any] = {
        "name": "topics",
        "task": "classification",
        "teacher": {"model": "loopback", "endpoint": endpoint, "concurrency": 4},
        "student": {"path": str(student)},
        "data": {"train": str(data)},
        "generation": {"max_tokens": 16},
        "training": {"learning_rate": 1e-2, "batch_size": 8, "num_epochs": 2, "early_stopping_patience": 0},
        "evaluation": {"concurrency": 2},
        "export": {"formats": ["gguf:f16"]},
    }
    for name, section in sections.items():
        job[name] = {**job.get(name, {}), **section}
    path.write_text(yaml.safe_dump(job))
    return path


def start_cli(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """The command in a process of its own, one thread, so that floats add up alike every time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, "-c", MAIN, *arguments], env=environment, **options)


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", MAIN, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def events(run: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (run / "events.jsonl").read_bytes().splitlines()]
