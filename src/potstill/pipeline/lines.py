"""Progress as plain lines: for logs, pipes and terminals that are none."""

from __future__ import annotations

import sys
import time


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
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def format_seconds(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
