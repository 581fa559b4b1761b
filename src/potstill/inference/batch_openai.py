"""OpenAI's batch API: a file of requests is uploaded, a batch made of it, and its results are files again.

Azure OpenAI has the same at its /openai/v1. A batch carries our name in its metadata, by which it is found again.

Source: platform.openai.com/docs/guides/batch and /docs/api-reference/batch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import aiohttp
import orjson

from potstill.inference.batch_ledger import Batch
from potstill.inference.batch_service import BatchState, Body, never_tried, read_json, read_lines
from potstill.inference.completion import error_body
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.protocol import RawReply

_PATH = "/v1/chat/completions"
_OUR_NAME = "potstill"
_CLOCKS_DIFFER_S = 3600.0
_NOT_REACHED = ("batch_expired", "batch_cancelled")


class OpenAIBatches:
    """The batches of one model at one endpoint."""

    def __init__(self, engine: EndpointEngine) -> None:
        self.engine = engine

    async def submit(self, batch: Batch, bodies: Mapping[str, Body]) -> str:
        lines = (
            orjson.dumps({"custom_id": key, "method": "POST", "url": _PATH, "body": body}, option=orjson.OPT_APPEND_NEWLINE)
            for key, body in bodies.items()
        )
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", b"".join(lines), filename=f"{batch.name}.jsonl", content_type="application/jsonl")
        uploaded = read_json(await self.engine.call("POST", "files", form))
        wanted = {
            "input_file_id": uploaded["id"], "endpoint": _PATH, "completion_window": "24h", "metadata": {_OUR_NAME: batch.name},
        }
        return str(read_json(await self.engine.call("POST", "batches", wanted))["id"])

    async def find(self, batch: Batch, taken: Collection[str]) -> str | None:
        after = ""
        while True:
            page = read_json(await self.engine.call("GET", f"batches?limit=100{after}"))
            for entry in page["data"]:
                if (entry.get("metadata") or {}).get(_OUR_NAME) == batch.name:
                    return str(entry["id"])
            older = page["data"] and page["data"][-1]["created_at"] < batch.at - _CLOCKS_DIFFER_S
            if older or not page.get("has_more"):
                return None
            after = f"&after={page['data'][-1]['id']}"

    async def poll(self, vendor_id: str) -> BatchState:
        batch = read_json(await self.engine.call("GET", f"batches/{vendor_id}"))
        status, counts = batch["status"], batch.get("request_counts") or {}
        progress: dict[str, Any] = {
            "total": counts.get("total", 0), "done": counts.get("completed", 0), "failed": counts.get("failed", 0)
        }
        if status == "failed":
            errors = (batch.get("errors") or {}).get("data") or [{}]
            line = f" (line {errors[0]['line']})" if errors[0].get("line") else ""
            return BatchState("failed", **progress, why=f"{errors[0].get('message')}{line}", code=errors[0].get("code"))
        ended = status in ("completed", "expired", "cancelled")
        return BatchState("ended" if ended else "running", **progress, canceled=status == "cancelled")

    async def results(self, vendor_id: str) -> Sequence[tuple[str, RawReply]]:
        batch = read_json(await self.engine.call("GET", f"batches/{vendor_id}"))
        files = [batch[name] for name in ("output_file_id", "error_file_id") if batch.get(name)]
        lines = [line for file in files for line in read_lines(await self.engine.call("GET", f"files/{file}/content"))]
        return [(line["custom_id"], _reply(line)) for line in lines]


def _reply(line: Mapping[str, Any]) -> RawReply:
    response, error = line.get("response"), line.get("error")
    if response:
        return RawReply(response["status_code"], orjson.dumps(response["body"]), 0.0)
    error = error or {}
    message = f"{error.get('message') or error.get('code') or 'no reply'}"
    return never_tried(message) if error.get("code") in _NOT_REACHED else RawReply(500, error_body(message), 0.0)
