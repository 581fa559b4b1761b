"""A real OpenAI-style chat endpoint on loopback, for tests: it answers from a function and fails as scripted.

    async with LoopbackEndpoint(lambda messages: "gold") as server:
        ...  server.base_url, server.requests, server.repeats()

    with serve_in_thread(answer, fault=lambda messages, attempt: status(429) if attempt == 1 else None) as server:
        ...  # synchronous code, or another process

`answer` gets the messages (a list of {"role", "content"}) and gives the text. `fault` gets the messages and how often this very
body was seen (1 for the first time) and gives a `Fault` made by `status`, `raw`, `cut`, `hang` or `drop`, or None to answer.
Imported as `from loopback import ...`: tests/ is on pytest's path.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
from aiohttp import web

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Fault:
    """Something else than an answer. `cut` sends that many bytes of the body and closes; `hangs` never answers."""

    status: int = 200
    body: bytes | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    hangs: bool = False


def status(code: int, message: str = "scripted", *, retry_after: float | str | None = None) -> Fault:
    """An OpenAI-style error, with a Retry-After header where one is given."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Fault(code, orjson.dumps({"error": {"message": message, "type": "scripted", "code": code}}), headers=headers)


def raw(body: bytes, *, code: int = 200, content_type: str = "application/json") -> Fault:
    """These very bytes: broken JSON, an HTML page, another protocol."""
    return Fault(code, body, content_type)


def cut(after: int = 20) -> Fault:
    """The right answer, of which only `after` bytes arrive before the connection closes."""
    return Fault(cut=after)


def hang() -> Fault:
    """No answer until the server closes."""
    return Fault(hangs=True)


def drop() -> Fault:
    """The connection closes before a status line."""
    return Fault(cut=-1)


@dataclass(frozen=True)
class SeenRequest:
    """One request as it arrived; `at` is time.monotonic()."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float

    @property
    def messages(self) -> Messages:
        return self.body["messages"]


def completion(text: str, *, finish_reason: str = "stop") -> bytes:
    """The body of a good reply; a word counts as a token."""
    tokens = len(text.split())
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return orjson.dumps({"id": "loopback", "object": "chat.completion", "choices": [choice], "usage": usage})


class LoopbackEndpoint:
    """The server; `async with` starts and stops it.

    base_url: ends in /v1. requests: all that arrived, in order. paths: where they went, with the query.
    most_in_flight: the most that were open at once. allows: beyond this many open requests it refuses with status 429, at once;
    refused: how many it so refused.
    """

    def __init__(
        self,
        answer: Callable[[Messages], str],
        *,
        fault: Callable[[Messages, int], Fault | None] = lambda messages, attempt: None,
        delay_s: float = 0.0,
        port: int = 0,
        allows: int | None = None,
    ) -> None:
        self._answer, self._fault, self._delay_s, self._port = answer, fault, delay_s, port
        self.allows = allows
        self.refused = 0
        self._closing = asyncio.Event()
        self._open = 0
        self._counts: Counter[bytes] = Counter()
        self.requests: list[SeenRequest] = []
        self.paths: list[str] = []
        self.most_in_flight = 0
        self.base_url = ""

    def repeats(self) -> int:
        """How many requests had a body that had arrived before."""
        return sum(self._counts.values()) - len(self._counts)

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/chat/completions", self._handle)
        app.router.add_post("/openai/deployments/{name}/chat/completions", self._handle)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 2**20)
        self.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=2048)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *exit_info: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "loopback", "object": "model"}]})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        payload = await request.read()
        body = orjson.loads(payload)
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        self._counts[canonical] += 1
        attempt = self._counts[canonical]
        self.requests.append(SeenRequest(body, dict(request.headers), time.monotonic()))
        self.paths.append(request.path_qs)
        if self.allows is not None and self._open >= self.allows:
            self.refused += 1
            return await self._reply(request, body, status(429, "too many at once"))
        self._open += 1
        self.most_in_flight = max(self.most_in_flight, self._open)
        try:
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            fault = self._fault(body["messages"], attempt)
            return await self._reply(request, body, fault or Fault())
        finally:
            self._open -= 1

    def completion_of(self, body: dict[str, Any]) -> bytes:
        """The body of a good reply to a request's."""
        return completion(self._answer(body["messages"]))

    async def _reply(self, request: web.Request, asked: dict[str, Any], fault: Fault) -> web.StreamResponse:
        if fault.hangs:
            await self._closing.wait()
        body = self.completion_of(asked) if fault.body is None else fault.body
        if fault.cut is None:
            return web.Response(status=fault.status, body=body, content_type=fault.content_type, headers=fault.headers)
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
        if fault.cut >= 0:
            with suppress(ConnectionResetError):  # whoever asked may have been killed
                await response.prepare(request)
                await response.write(body[: fault.cut])
        if request.transport is not None:
            request.transport.close()
        return response


@contextmanager
def serve_in_thread(
    answer: Callable[[Messages], str], make: Callable[..., Any] = LoopbackEndpoint, **options: Any
) -> Iterator[Any]:
    """The same endpoint, or another server that `make` makes, in a thread of its own: for synchronous code, other processes."""
    started = threading.Event()
    stopping: list[Callable[[], None]] = []
    servers: list[Any] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with make(answer, **options) as server:
            loop = asyncio.get_running_loop()
            stopping.append(lambda: loop.call_soon_threadsafe(stop.set))
            servers.append(server)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    if not started.wait(10):
        raise RuntimeError("the loopback endpoint did not start")
    try:
        yield servers[0]
    finally:
        stopping[0]()
        thread.join(10)
