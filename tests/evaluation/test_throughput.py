"""Responses a second of a local model with several rows at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from potstill.evaluation.answering import THROUGHPUT_ROWS, Question, measure_throughput
from potstill.inference.protocol import RawReply, Request, Sampling, TransportError
from potstill.rows import Message, Row


class Pausing:
    """An engine that takes 10 ms a reply, and loses every reply of one prompt."""

    def __init__(self) -> None:
        self.in_flight = self.most_in_flight = self.asked = 0

    async def generate(self, request: Request) -> RawReply:
        self.asked += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0.01)
        self.in_flight -= 1
        if request.messages[0].content == "lost":
            raise TransportError("cut off")
        return RawReply(200, b"{}", 0.01)


def measured(texts: list[str]) -> tuple[float | None, float, Pausing]:
    rows = [Row(str(i), (Message("user", text),)) for i, text in enumerate(texts)]
    engine: Any = Pausing()
    started = time.perf_counter()
    rate = asyncio.run(measure_throughput(engine, [Question(row, row.messages, 1, Sampling()) for row in rows], 4))
    return rate, time.perf_counter() - started, engine


def test_every_reply_counts_also_those_that_come_at_the_same_moment() -> None:
    rate, elapsed_s, engine = measured(["ask"] * 100)
    assert engine.asked == THROUGHPUT_ROWS
    assert engine.most_in_flight == 4
    assert rate is not None
    assert rate * elapsed_s >= THROUGHPUT_ROWS  # replies over a time that ours includes


def test_lost_replies_do_not_count() -> None:
    rate, _, engine = measured(["lost"] * 8)
    assert (rate, engine.asked) == (None, 8)
