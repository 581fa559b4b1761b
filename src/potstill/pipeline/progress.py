"""How a long step tells how far it is. The pipeline reports; what a person sees is the command line's business."""

from __future__ import annotations

import time
from typing import Any, Protocol

from potstill.pipeline.events import EventLog


class Progress(Protocol):
    """Where steps report to."""

    def begin(self, label: str, total: int | None) -> None:
        """A step starts; `total` counts its units, None where it is not known."""
        ...

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        """`done` units of the current step are ready."""
        ...

    def end(self) -> None:
        """The current step is over."""
        ...

    def say(self, text: str) -> None:
        """One line for the user, between steps."""
        ...


class Silent:
    """Reports to nobody."""

    def begin(self, label: str, total: int | None) -> None: ...
    def update(self, done: int, total: int | None = None, detail: str = "") -> None: ...
    def end(self) -> None: ...
    def say(self, text: str) -> None: ...


class Recorded:
    """Passes everything on; what is said becomes a `message` event, and every `interval_s` seconds at most progress one."""

    def __init__(self, inner: Progress, events: EventLog, interval_s: float = 2.0) -> None:
        self._inner = inner
        self._events = events
        self._interval_s = interval_s
        self._label = ""
        self._total: int | None = None
        self._last = 0.0

    def begin(self, label: str, total: int | None) -> None:
        self._label, self._total, self._last = label, total, time.monotonic()
        self._inner.begin(label, total)

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        self._total = total or self._total
        self._inner.update(done, total, detail)
        now = time.monotonic()
        if now - self._last >= self._interval_s:
            self._last = now
            values: dict[str, Any] = {"detail": detail} if detail else {}
            self._events.append("progress", step=self._label, done=done, total=self._total, **values)

    def end(self) -> None:
        self._inner.end()

    def say(self, text: str) -> None:
        self._inner.say(text)
        self._events.append("message", text=text)
