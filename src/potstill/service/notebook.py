"""What a notebook needs: progress as tqdm's bars, which are widgets where they can be, and room for an event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def outside_loop(work: Callable[[], Result]) -> Result:
    """Do work that starts an event loop of its own; in a thread where one runs already, as it does in every notebook cell."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


class NotebookProgress:
    """One tqdm bar a step; what is said stands between the bars."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, label: str, total: int | None) -> None:
        from tqdm.auto import tqdm

        self.end()
        self._bar = tqdm(total=total, desc=label, leave=False)

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        if self._bar is None:
            return
        if total is not None:
            self._bar.total = total
        if detail:
            self._bar.set_postfix_str(detail, refresh=False)
        self._bar.update(done - self._bar.n)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, text: str) -> None:
        from tqdm.auto import tqdm

        tqdm.write(text, file=sys.stderr)
