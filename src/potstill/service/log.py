"""The events of a run as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson


def format_event(event: Mapping[str, Any]) -> str | None:
    """A line that begins with the local time; None for an event that tells a person nothing."""
    text = _text(event)
    if text is None:
        return None
    return f"{datetime.fromisoformat(event['time']).astimezone():%H:%M:%S} {text}"


def _text(event: Mapping[str, Any]) -> str | None:
    match event["event"]:
        case "job":
            return f"run {event['name']}" + (f" until {event['until']}" if event.get("until") else "")
        case "started":
            return f"{event['stage']} ..."
        case "progress":
            total = f"/{event['total']}" if event.get("total") else ""
            return f"{event['step']}: {event['done']}{total}" + (f"; {event['detail']}" if event.get("detail") else "")
        case "metric":
            values = {key: value for key, value in event.items() if key not in ("time", "event", "stage")}
            return "; ".join(f"{key} {_number(value)}" for key, value in values.items())
        case "message":
            return str(event["text"])
        case "failed":
            return f"failed: {format_error(event)}"
        case "canceled":
            return "cancelled"
        case "completed":
            return "done" if event.get("until") in (None, "report") else f"done until {event['until']}"
    return None


def format_error(error: Mapping[str, Any]) -> str:
    """An error, as `PotstillError.as_json` tells it, on one line."""
    parts = [f"{key}: {error[key]}" for key in ("where", "found", "expected") if error.get(key)]
    return " | ".join([str(error.get("what")), *parts, *([str(error["hint"])] if error.get("hint") else [])])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def new_events(file: Path, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole events that stand behind a byte offset of events.jsonl, each with the offset behind it."""
    if not file.is_file():
        return
    with file.open("rb") as lines:
        lines.seek(offset)
        for line in lines:
            if not line.endswith(b"\n"):
                return  # still being written
            offset += len(line)
            try:
                event = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(event, dict):
                yield event, offset

