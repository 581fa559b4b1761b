"""The batch APIs of OpenAI and Anthropic on loopback, for tests: what is handed in is answered when it has been looked at often
enough, and all goes wrong that is scripted.

    async with OpenAIBatchServer(lambda messages: "gold") as server: ...
    async with AnthropicBatchServer(lambda messages: "gold") as server: ...

`server.batches` has all that were made, oldest first. Scripts, all of them functions:
`line_fault(body, attempt)` a `loopback.Fault` for one request of a batch, or None; attempt counts equal bodies from 1
`before(call, number)`, `after(call, number)` a Fault in place of a reply to a call ("POST batches", "GET batches/ID", ...),
before or after it took effect; number counts calls of that name from 1
`ending(number)` how the batch of this number ends: "completed", "expired" and "canceled" (half of it was answered then),
"failed" (OpenAI only), or "running" (never)
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from anthropic_server import AnthropicServer, check_body, error
from loopback import Fault, LoopbackEndpoint, completion

LOOKS = 2  # until a batch has ended
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class MadeBatch:
    """A batch that was handed in; `lines` maps custom ids to bodies."""

    id: str
    lines: dict[str, dict[str, Any]]
    at: float
    metadata: dict[str, str] = field(default_factory=dict)
    looks: int = 0
    results: list[bytes] | None = None


class Batches:
    """What both vendors' servers share."""

    def __init__(self) -> None:
        self.batches: list[MadeBatch] = []
        self.line_fault: Callable[[dict[str, Any], int], Fault | None] = lambda body, attempt: None
        self.before: Callable[[str, int], Fault | None] = lambda call, number: None
        self.after: Callable[[str, int], Fault | None] = lambda call, number: None
        self.ending: Callable[[int], str] = lambda number: "completed"
        self.calls: Counter[str] = Counter()
        self._seen: Counter[bytes] = Counter()

    def asked(self) -> list[str]:
        """The last message of every request of every batch, in order."""
        return [body["messages"][-1]["content"] for batch in self.batches for body in batch.lines.values()]

    def make(self, lines: dict[str, dict[str, Any]], metadata: dict[str, str] | None = None) -> MadeBatch:
        batch = MadeBatch(f"batch_{len(self.batches) + 1}", lines, time.time(), metadata or {})
        self.batches.append(batch)
        return batch

    def look(self, batch: MadeBatch) -> str:
        """How it stands after one more look: "running", or its ending."""
        batch.looks += 1
        return self.state(batch)

    def state(self, batch: MadeBatch) -> str:
        ending = self.ending(self.batches.index(batch) + 1)
        return ending if batch.looks > LOOKS or ending == "failed" else "running"

    def outcomes(self, batch: MadeBatch) -> list[tuple[str, dict[str, Any], Fault | None, bool]]:
        """Key, body, what went wrong with it, and whether it was reached at all."""
        reached = len(batch.lines) if self.state(batch) == "completed" else len(batch.lines) // 2
        told = []
        for number, (key, body) in enumerate(batch.lines.items()):
            fault = None
            if number < reached:
                canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
                self._seen[canonical] += 1
                fault = self.line_fault(body, self._seen[canonical])
            told.append((key, body, fault, number < reached))
        return told

    def scripted(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = f"{request.method} {re.sub(r'^/v1/(messages/)?', '', request.path)}"
            self.calls[call] += 1
            fault = self.before(call, self.calls[call])
            if fault is None:
                response = await handler(request)
                fault = self.after(call, self.calls[call])
                if fault is None:
                    return response
            if fault.hangs:
                await asyncio.sleep(60)
            if fault.cut is not None:
                assert request.transport is not None
                request.transport.close()
            return web.Response(status=fault.status, body=fault.body, content_type=fault.content_type, headers=fault.headers)

        return handle


class OpenAIBatchServer(Batches, LoopbackEndpoint):
    """See the top of this file."""

    def __init__(self, answer: Callable[[list[dict[str, str]]], str]) -> None:
        Batches.__init__(self)
        LoopbackEndpoint.__init__(self, answer)
        self.files: dict[str, bytes] = {}

    def add_routes(self, app: web.Application) -> None:
        super().add_routes(app)
        app.router.add_post("/v1/files", self.scripted(self._upload))
        app.router.add_get("/v1/files/{id}/content", self.scripted(self._download))
        app.router.add_post("/v1/batches", self.scripted(self._create))
        app.router.add_get("/v1/batches", self.scripted(self._list))
        app.router.add_get("/v1/batches/{id}", self.scripted(self._retrieve))

    def _keep(self, data: bytes) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = data
        return name

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        upload = form["file"]
        assert isinstance(upload, web.FileField)
        return web.json_response({"id": self._keep(upload.file.read()), "object": "file", "purpose": "batch"})

    async def _download(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["id"]], content_type="application/octet-stream")

    async def _create(self, request: web.Request) -> web.Response:
        wanted = orjson.loads(await request.read())
        assert (wanted["endpoint"], wanted["completion_window"]) == ("/v1/chat/completions", "24h")
        lines = [orjson.loads(line) for line in self.files[wanted["input_file_id"]].splitlines()]
        assert all((line["method"], line["url"]) == ("POST", "/v1/chat/completions") for line in lines)
        batch = self.make({line["custom_id"]: line["body"] for line in lines}, wanted["metadata"])
        return web.json_response(self._object(batch))

    async def _list(self, request: web.Request) -> web.Response:
        newest = [self._object(batch) for batch in reversed(self.batches)]
        names = [entry["id"] for entry in newest]
        start = names.index(request.query["after"]) + 1 if "after" in request.query else 0
        page = newest[start : start + 2]  # pages are short here, so that all are read
        return web.json_response({"object": "list", "data": page, "has_more": start + 2 < len(newest)})

    async def _retrieve(self, request: web.Request) -> web.Response:
        batch = next((batch for batch in self.batches if batch.id == request.match_info["id"]), None)
        if batch is None:
            return web.json_response({"error": {"message": "No batch found"}}, status=404)
        self.look(batch)
        return web.json_response(self._object(batch))

    def _object(self, batch: MadeBatch) -> dict[str, Any]:
        state = self.state(batch)
        running = ("validating", "in_progress", "finalizing")[min(batch.looks, 2)]
        status = {"running": running, "canceled": "cancelled"}.get(state, state)
        data = {"id": batch.id, "object": "batch", "status": status, "created_at": int(batch.at), "metadata": batch.metadata,
                "output_file_id": None, "error_file_id": None, "errors": None,
                "request_counts": {"total": len(batch.lines), "completed": 0, "failed": 0}}
        if state == "failed":
            failure = self.line_fault({}, 1) or Fault()
            data["errors"] = {"object": "list", "data": [orjson.loads(failure.body or b"{}")]}
        elif state != "running":
            self._end(batch)
            good, bad = batch.results or [b"", b""]
            data |= {"output_file_id": good.decode() or None, "error_file_id": bad.decode() or None}
        return data

    def _end(self, batch: MadeBatch) -> None:
        if batch.results is not None:
            return
        good, bad = [], []
        for key, body, fault, reached in self.outcomes(batch):
            line: dict[str, Any] = {"id": f"req_{key}", "custom_id": key, "response": None, "error": None}
            if not reached:
                how = "batch_cancelled" if self.state(batch) == "canceled" else "batch_expired"
                bad.append(line | {"error": {"code": how, "message": "This request was not executed in time."}})
            elif fault is not None:
                response = {"status_code": fault.status, "request_id": "r", "body": orjson.loads(fault.body or b"{}")}
                bad.append(line | {"response": response})
            else:
                reply = orjson.loads(completion(self._answer(body["messages"])))
                good.append(line | {"response": {"status_code": 200, "request_id": "r", "body": reply}})
        batch.results = [
            self._keep(b"\n".join(map(orjson.dumps, reversed(lines)))).encode() if lines else b"" for lines in (good, bad)
        ]


class AnthropicBatchServer(Batches, AnthropicServer):
    """See the top of this file."""

    def __init__(self, answer: Callable[[list[dict[str, str]]], str]) -> None:
        Batches.__init__(self)
        AnthropicServer.__init__(self, answer)

    def add_routes(self, app: web.Application) -> None:
        super().add_routes(app)
        app.router.add_post("/v1/messages/batches", self.scripted(self._create))
        app.router.add_get("/v1/messages/batches", self.scripted(self._list))
        app.router.add_get("/v1/messages/batches/{id}", self.scripted(self._retrieve))
        app.router.add_get("/v1/messages/batches/{id}/results", self.scripted(self._results))

    async def _create(self, request: web.Request) -> web.Response:
        wanted = orjson.loads(await request.read())
        assert set(wanted) == {"requests"}
        batch = self.make({entry["custom_id"]: entry["params"] for entry in wanted["requests"]})
        return web.json_response(self._object(batch))

    async def _list(self, request: web.Request) -> web.Response:
        newest = [self._object(batch) for batch in reversed(self.batches)]
        names = [entry["id"] for entry in newest]
        start = names.index(request.query["after_id"]) + 1 if "after_id" in request.query else 0
        page = newest[start : start + 2]
        return web.json_response(
            {"data": page, "has_more": start + 2 < len(newest), "last_id": page[-1]["id"] if page else None, "first_id": None}
        )

    def _find(self, request: web.Request) -> MadeBatch | None:
        return next((batch for batch in self.batches if batch.id == request.match_info["id"]), None)

    async def _retrieve(self, request: web.Request) -> web.Response:
        batch = self._find(request)
        if batch is None:
            missing = error(404, "not_found_error", "no such batch")
            return web.Response(status=404, body=missing.body, content_type="application/json")
        self.look(batch)
        return web.json_response(self._object(batch))

    def _object(self, batch: MadeBatch) -> dict[str, Any]:
        state = self.state(batch)
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if state == "running":
            counts["processing"] = len(batch.lines)
        else:
            for line in self._lines(batch):
                counts[orjson.loads(line)["result"]["type"]] += 1
        at = datetime.fromtimestamp(batch.at, UTC).isoformat()
        ended = state != "running"
        return {
            "id": batch.id, "type": "message_batch", "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts, "created_at": at, "expires_at": at, "ended_at": at if ended else None,
            "archived_at": None, "cancel_initiated_at": None,
            "results_url": f"{self.base_url}/v1/messages/batches/{batch.id}/results" if ended else None,
        }

    def _lines(self, batch: MadeBatch) -> list[bytes]:
        if batch.results is None:
            batch.results = [
                orjson.dumps({"custom_id": key, "result": self._result(batch, body, fault, reached)})
                for key, body, fault, reached in self.outcomes(batch)
            ][::-1]
        return batch.results

    def _result(self, batch: MadeBatch, body: dict[str, Any], fault: Fault | None, reached: bool) -> dict[str, Any]:
        if not reached:
            return {"type": self.state(batch)}
        fault = fault or check_body(body)
        if fault is not None:
            return {"type": "errored", "error": orjson.loads(fault.body or b"{}")}
        return {"type": "succeeded", "message": self.reply(body)}

    async def _results(self, request: web.Request) -> web.Response:
        batch = self._find(request)
        assert batch is not None
        return web.Response(body=b"\n".join(self._lines(batch)), content_type="application/x-jsonl")
