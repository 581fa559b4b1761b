"""The event log: appended, whole lines only, readable after a kill."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy
import orjson
import pytest

from potstill.pipeline.events import EventLog
from potstill.pipeline.progress import Recorded, Silent


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


def lines(log_file: Path) -> list[bytes]:
    return log_file.read_bytes().splitlines()


def test_events_come_back_in_order_with_their_time(log: EventLog, tmp_path: Path) -> None:
    log.append("job", name="a")
    log.append("metric", value=numpy.float64(0.5))
    events = list(log.read())
    assert [event["event"] for event in events] == ["job", "metric"]
    assert (events[0]["name"], events[1]["value"]) == ("a", 0.5)
    assert datetime.fromisoformat(events[0]["time"]).tzinfo is not None
    assert len(lines(tmp_path / "events.jsonl")) == 2


def test_no_file_holds_no_events(log: EventLog) -> None:
    assert list(log.read()) == []
    assert log.last_finished("train") is None


def test_a_line_torn_by_a_kill_is_passed_over_and_the_next_stands_alone(log: EventLog, tmp_path: Path) -> None:
    log.append("started", stage="train")
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-01-01T00:00:00", "event": "fini')
    assert [event["event"] for event in log.read()] == ["started"]
    log.append("started", stage="train", again=True)
    assert [event["event"] for event in log.read()] == ["started", "started"]
    assert orjson.loads(lines(tmp_path / "events.jsonl")[-1])["again"] is True
    assert len(lines(tmp_path / "events.jsonl")) == 3


def test_a_line_that_is_no_event_is_passed_over(log: EventLog, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("[1]\n\n")
    log.append("job")
    assert [event["event"] for event in log.read()] == ["job"]


def test_the_last_finished_event_of_a_stage(log: EventLog) -> None:
    log.append("finished", stage="train", fingerprint="one")
    log.append("finished", stage="train", fingerprint="two")
    log.append("finished", stage="export", fingerprint="three")
    log.append("failed", stage="train", fingerprint="four")
    found = log.last_finished("train")
    assert found is not None
    assert found["fingerprint"] == "two"
    assert log.last_finished("report") is None


def test_progress_is_recorded_once_an_interval(log: EventLog) -> None:
    often, seldom = Recorded(Silent(), log, interval_s=0.0), Recorded(Silent(), log, interval_s=3600.0)
    for progress in (often, seldom):
        progress.begin("training", 4)
        progress.update(1, detail="loss 2.0")
        progress.update(2, total=5)
        progress.end()
    told = [(event["step"], event["done"], event["total"], event.get("detail")) for event in log.read()]
    assert told == [("training", 1, 4, "loss 2.0"), ("training", 2, 5, None)]
