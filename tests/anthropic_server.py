"""Anthropic's Messages API on loopback, for tests: it answers from a function and fails as scripted.

    async with AnthropicServer(lambda messages: "gold") as server:
        ...  server.base_url, server.requests

`fault` gets the body and how often it was seen, and gives a `loopback.Fault` or None. Its errors have Anthropic's own shape:
`error(429, "rate_limit_error", "slow down")`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import orjson
from aiohttp import web

from loopback import Fault, Messages, SeenRequest

Body = dict[str, Any]


def error(code: int, kind: str, message: str = "scripted", **headers: str) -> Fault:
    """An error in Anthropic's shape."""
    body = orjson.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})
    return Fault(code, body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def message(text: str, *, thinking: str | None = None, stop_reason: str = "end_turn") -> Body:
    """A good reply; a word counts as a token, and four of the prompt came from the cache."""
    thought = [{"type": "thinking", "thinking": thinking, "signature": "c2ln"}] if thinking is not None else []
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-loopback",
        "content": [*thought, {"type": "text", "text": text}], "stop_reason": stop_reason, "stop_sequence": None,
        "usage": {"input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4,
                  "output_tokens": len(text.split())},
    }


_KNOWN = {"model", "max_tokens", "messages", "temperature", "top_p", "system", "stop_sequences", "output_config"}


def check_body(body: Body) -> Fault | None:
    """What the API itself refuses of a request."""
    unknown = set(body) - _KNOWN
    if unknown:
        return error(400, "invalid_request_error", f"{min(unknown)}: Extra inputs are not permitted")
    if not isinstance(body.get("max_tokens"), int):
        return error(400, "invalid_request_error", "max_tokens: Field required")
    if any(entry["role"] not in ("user", "assistant") for entry in body["messages"]):
        return error(400, "invalid_request_error", "messages: Unexpected role")
    return None


class AnthropicServer:
    """The server; `async with` starts and stops it. requests: all that arrived, in order."""

    def __init__(
        self, answer: Callable[[Messages], str], *, fault: Callable[[Body, int], Fault | None] = lambda body, attempt: None
    ) -> None:
        self._answer, self._fault = answer, fault
        self._counts: Counter[bytes] = Counter()
        self.requests: list[SeenRequest] = []
        self.base_url = ""

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/messages", self._messages)

    def reply(self, body: Body) -> Body:
        return message(self._answer(body["messages"]))

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=300 * 2**20)
        self.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exit_info: object) -> None:
        await self._runner.cleanup()

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        self._counts[canonical] += 1
        self.requests.append(SeenRequest(body, dict(request.headers), time.monotonic()))
        fault = self._fault(body, self._counts[canonical]) or check_body(body) or Fault()
        text = orjson.dumps(self.reply(body)) if fault.body is None else fault.body
        if fault.cut is None:
            return web.Response(status=fault.status, body=text, content_type=fault.content_type, headers=fault.headers)
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(text))})
        if fault.cut >= 0:
            await response.prepare(request)
            await response.write(text[: fault.cut])
        assert request.transport is not None
        request.transport.close()
        return response
