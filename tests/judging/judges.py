"""Judges for tests: loopback endpoints that know how good an answer is by a word in it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from loopback import LoopbackEndpoint, Messages
from potstill.inference import Client, Journal
from potstill.inference.endpoint import EndpointEngine
from potstill.rows import Message, Row

_BLOCK = re.compile(r"<<(answer(?: [AB])?) ([0-9a-f]{12})>>\n(.*?)\n<<end of \1 \2>>", re.DOTALL)


def rows_of(count: int) -> list[Row]:
    return [Row(f"r{number}", (Message("user", f"Question {number}?"),), f"gold {number}") for number in range(count)]


def answers_shown(messages: Messages) -> list[str]:
    """The answers that a judge is asked about, in their order."""
    return [match[2] for match in _BLOCK.findall(messages[-1]["content"])]


@asynccontextmanager
async def judge(folder: Path, answer: Callable[[Messages], str]) -> AsyncIterator[tuple[Client, LoopbackEndpoint]]:
    """A client around a loopback judge."""
    async with LoopbackEndpoint(answer) as server:
        engine = EndpointEngine(server.base_url, "judge", None, timeout_s=20)
        try:
            with Journal(folder / "journal") as journal:
                yield Client(engine, journal, concurrency=8), server
        finally:
            await engine.aclose()
