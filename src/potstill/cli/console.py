"""What a person sees of a long step: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from potstill.pipeline.progress import Progress


def console_progress(*, quiet: bool) -> Progress:
    """Where a command reports to: nowhere, to bars, or to plain lines on stderr."""
    from potstill.pipeline.progress import Silent

    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


class Lines:
    """A line when a step starts and ends, and one at most every ten seconds between."""

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._label = ""
        self._total: int | None = None
        self._done = 0
        self._started = self._last = 0.0

    def begin(self, label: str, total: int | None) -> None:
        self._label, self._total, self._done = label, total, 0
        self._started = self._last = time.monotonic()
        self.say(f"{label} ...")

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        self._done, self._total = done, total or self._total
        now = time.monotonic()
        if now - self._last >= self._interval_s:
            self._last = now
            self.say(f"{self._label}: {self._state(now)}{'; ' + detail if detail else ''}")

    def _state(self, now: float) -> str:
        elapsed_s = max(now - self._started, 1e-6)
        rate = self._done / elapsed_s
        if not self._total:
            return f"{self._done} done, {rate:.2f}/s"
        left_s = (self._total - self._done) / rate if rate else 0.0
        return f"{self._done}/{self._total}, {rate:.2f}/s, {format_seconds(left_s)} left"

    def end(self) -> None:
        self.say(f"{self._label}: {self._done} in {format_seconds(time.monotonic() - self._started)}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def format_seconds(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Bars:
    """One rich progress bar a step."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._bar: Any = None
        self._task: Any = None

    def begin(self, label: str, total: int | None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._bar.start()
        self._task = self._bar.add_task(label, total=total, rate="", detail="")

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        if self._bar is None:
            return
        speed = self._bar.tasks[0].speed
        rate = f"{speed:.2f}/s" if speed else ""
        changes: dict[str, Any] = {"completed": done, "rate": rate, "detail": detail}
        if total is not None:
            changes["total"] = total
        self._bar.update(self._task, **changes)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)
