"""What a run folder says about its run: how it stands, how far it is, why it failed.

The lock says whether a process is at work, the events say what it did. A process that was killed frees the lock and writes no
last event, so its run counts as failed from that moment on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from potstill.errors import JobFailedError
from potstill.pipeline.events import EventLog
from potstill.pipeline.folder import RunFolder

Status = Literal["Queued", "Running", "Completed", "Failed", "Canceled"]
ENDED: tuple[Status, ...] = ("Completed", "Failed", "Canceled")
ENDS = ("completed", "failed", "canceled")  # the events one of which is a run's last, unless it was killed
_LAST_STAGE = (None, "report")


@dataclass(frozen=True, slots=True)
class RunState:
    """How a run stands.

    stage: the one at work, or where the run stopped. progress: of the step at work: {"step", "done", "total"}. error: why it
    failed, as `PotstillError.as_json` tells it. started_at: when it was last started or went on.
    """

    status: Status
    stage: str | None
    progress: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    started_at: datetime | None
    finished_at: datetime | None


def read_state(folder: RunFolder, *, alive: bool | None = None) -> RunState:
    """How the run in a folder stands; `folder` must hold one. Who holds the folder itself says whether the run goes on."""
    if alive is None:
        alive = folder.is_held()  # before the events: a run that ends in between has then written its last one
    events = list(EventLog(folder.events).read())
    starts = [index for index, event in enumerate(events) if event["event"] == "job"]
    since = events[starts[-1] :] if starts else events
    stage = next((event["stage"] for event in reversed(since) if event["event"] == "started"), None)
    started_at = _time(since[0]) if since else None
    if alive:
        return RunState("Running", stage, _progress(since), None, started_at, None)
    last = next((event for event in reversed(since) if event["event"] in ENDS), None)
    ended_at = _time(since[-1]) if since else None
    if last is None:
        return RunState("Failed", stage, None, _vanished(folder, stage), started_at, ended_at)
    if last["event"] == "failed":
        error = {key: value for key, value in last.items() if key not in ("time", "event", "stage")}
        return RunState("Failed", stage, None, error, started_at, ended_at)
    whole = last["event"] == "completed" and last.get("until") in _LAST_STAGE
    return RunState("Completed" if whole else "Canceled", stage, None, None, started_at, ended_at)


def _vanished(folder: RunFolder, stage: str | None) -> dict[str, Any]:
    """The error of a run whose process ended without a word."""
    return JobFailedError(
        "the process of the job ended without a word: it was killed, or the machine went down",
        where=f"stage {stage}" if stage else None, hint=f"what was done is kept: potstill run {folder.root} goes on from there",
    ).as_json()


def _progress(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest progress of the stage at work."""
    for event in reversed(events):
        if event["event"] == "progress":
            return {key: event.get(key) for key in ("step", "done", "total")}
        if event["event"] in ("started", "finished"):
            return None
    return None


def _time(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["time"])
