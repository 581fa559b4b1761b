"""The endpoint that benchmarks/generation.py measures against: OpenAI-style chat on loopback, in a process of its own.

A bare asyncio.Protocol, so that it takes as little of the machine as it can. Prints its port, then serves until it is killed.
Prompts hold "row N"; answers depend on them alone. GET /stats tells what it has seen, GET /log the rows as they came.

    python benchmarks/parts/generation_server.py [--latency 0.2] [--allows 64] [--faults]

--allows refuses with status 429 beyond so many open requests. --faults: 5 % of tries end in a cut body, a status of 5xx or
broken JSON, and 1 % hang for 20 s and then break off; which ones depends on row and try alone.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import time
from array import array
from collections import Counter

import orjson

ROW = re.compile(rb"row (\d+)")
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
SETTLED_S = 10.0
HANG_S = 20.0
FAULTS = ("cut", "status", "json")


class State:
    """What the server was told to do, and what it has seen."""

    def __init__(self, latency_s: float, allows: int | None, faults: bool) -> None:
        self.latency_s, self.allows, self.faults = latency_s, allows, faults
        self.open = self.most_open = self.answered = self.refused = 0
        self.settled = self.settled_refused = 0  # requests and refusals later than ten seconds after the first
        self.first_at: float | None = None
        self.log = array("q")
        self.tries: Counter[int] = Counter()

    def as_dict(self) -> dict[str, object]:
        return {
            "requests": len(self.log), "rows": len(self.tries), "open": self.open, "most_open": self.most_open,
            "answered": self.answered, "refused": self.refused, "settled": self.settled,
            "settled_refused": self.settled_refused,
        }


class Connection(asyncio.Protocol):
    """One connection, one request at a time on it."""

    def __init__(self, state: State) -> None:
        self.state, self.buffer = state, b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        self.buffer = rest[size:]
        path = head.split(b" ", 2)[1]
        if path == b"/stats":
            self.send(200, orjson.dumps(self.state.as_dict()))
        elif path == b"/log":
            self.send(200, orjson.dumps(self.state.log.tolist()))
        elif path.endswith(b"/models"):
            self.send(200, b'{"object": "list", "data": [{"id": "loopback", "object": "model"}]}')
        else:
            self.asked(rest[:size])

    def asked(self, body: bytes) -> None:
        state = self.state
        found = ROW.search(body)
        row = int(found[1]) if found else -1
        now = time.monotonic()
        state.first_at = state.first_at or now
        settled = now - state.first_at > SETTLED_S
        state.log.append(row)
        state.settled += settled
        if state.allows is not None and state.open >= state.allows:
            state.refused += 1
            state.settled_refused += settled
            self.send(429, b'{"error": {"message": "too many at once"}}')
            return
        state.tries[row] += 1
        state.open += 1
        state.most_open = max(state.most_open, state.open)
        fault = fault_of(row, state.tries[row]) if state.faults else None
        loop = asyncio.get_running_loop()
        if fault == "hang":
            loop.call_later(HANG_S, self.break_off)
        elif state.latency_s:
            loop.call_later(state.latency_s, self.answer, row, fault)
        else:
            self.answer(row, fault)

    def answer(self, row: int, fault: str | None) -> None:
        self.state.open -= 1
        if fault == "status":
            self.send(500 + row % 4, b'{"error": {"message": "scripted"}}')
        elif fault == "json":
            self.send(200, completion(row)[:-30])
        elif fault == "cut":
            body = completion(row)
            self.send(200, body[:40], length=len(body))
            self.close()
        else:
            self.state.answered += 1
            self.send(200, completion(row))

    def break_off(self) -> None:
        self.state.open -= 1
        self.close()

    def send(self, status: int, body: bytes, *, length: int | None = None) -> None:
        if self.transport is not None and not self.transport.is_closing():
            head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            self.transport.write(head % (status, len(body) if length is None else length) + body)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


def completion(row: int) -> bytes:
    """An answer of ordinary length, with the row's number in it."""
    text = f"The answer to number {row} is {row % 97}. " + "It follows from what was said before, step by step. " * 6
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 120, "completion_tokens": 90, "total_tokens": 210}
    return orjson.dumps(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "loopback", "choices": [choice], "usage": usage}
    )


def fault_of(row: int, attempt: int) -> str | None:
    """5 in a hundred tries fail in one of three ways, 1 hangs."""
    number = int.from_bytes(hashlib.blake2b(b"%d %d" % (row, attempt), digest_size=4).digest(), "big") % 1000
    if number < 50:
        return FAULTS[number % 3]
    return "hang" if number < 60 else None


async def serve(state: State) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--allows", type=int)
    parser.add_argument("--faults", action="store_true")
    options = parser.parse_args()
    asyncio.run(serve(State(options.latency, options.allows, options.faults)))
