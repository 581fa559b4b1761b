"""What a person sees of a long step: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from potstill.pipeline.progress import Progress


def console_progress(*, quiet: bool) -> Progress:
    """Where a command reports to: nowhere, to bars, or to plain lines on stderr."""
    from potstill.pipeline.lines import Lines
    from potstill.pipeline.progress import Silent

    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


def print_json(value: Any) -> None:
    """A value for a program, and nothing else."""
    import json

    print(json.dumps(value, indent=2))


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for a person: drawn on a terminal, columns two spaces apart elsewhere."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
    table = Table(*header) if sys.stdout.isatty() else Table(*header, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print(table)


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
