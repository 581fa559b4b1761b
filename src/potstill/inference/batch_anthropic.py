"""Anthropic's Message Batches, through its SDK: requests and results go over the wire directly, without files.

A batch carries no name of ours. One whose id was never noted is looked for by when it was made and how many requests it has;
whether it was ours shows in its results, whose ids are our keys.

Source: platform.claude.com/docs/en/api/creating-message-batches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from potstill.inference.anthropic import AnthropicEngine
from potstill.inference.batch_ledger import Batch
from potstill.inference.batch_service import BatchState, Body, never_tried, read_json, read_lines
from potstill.inference.protocol import RawReply

_CLOCKS_DIFFER_S = 300.0
# docs.anthropic.com/en/api/errors
_STATUS = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "timeout_error": 504, "overloaded_error": 529,
}


class AnthropicBatches:
    """The batches of one model."""

    def __init__(self, engine: AnthropicEngine) -> None:
        self.engine = engine

    async def submit(self, batch: Batch, bodies: Mapping[str, Body]) -> str:
        requests: list[Any] = [{"custom_id": key, "params": body} for key, body in bodies.items()]
        return str(read_json(await self.engine.call(lambda api: api.create(requests=requests)))["id"])

    async def find(self, batch: Batch, taken: Collection[str]) -> str | None:
        arguments: dict[str, Any] = {"limit": 100}
        while True:
            page = read_json(await self._list(arguments))
            for entry in page["data"]:
                if _unix_time(entry["created_at"]) < batch.at - _CLOCKS_DIFFER_S:
                    return None
                if sum(entry["request_counts"].values()) == len(batch.keys) and entry["id"] not in taken:
                    return str(entry["id"])
            if not page.get("has_more"):
                return None
            arguments = {"limit": 100, "after_id": page["last_id"]}

    async def _list(self, arguments: Mapping[str, Any]) -> RawReply:
        return await self.engine.call(lambda api: api.list(**arguments))

    async def poll(self, vendor_id: str) -> BatchState:
        batch = read_json(await self.engine.call(lambda api: api.retrieve(vendor_id)))
        counts = batch["request_counts"]
        return BatchState(
            "ended" if batch["processing_status"] == "ended" else "running",
            total=sum(counts.values()), done=counts.get("succeeded", 0), failed=counts.get("errored", 0),
            canceled=counts.get("canceled", 0) > 0,
        )

    async def results(self, vendor_id: str) -> Sequence[tuple[str, RawReply]]:
        lines = read_lines(await self.engine.call(lambda api: api.results(vendor_id)))
        return [(line["custom_id"], _reply(line["result"])) for line in lines]


def _reply(result: Mapping[str, Any]) -> RawReply:
    if result["type"] == "succeeded":
        return RawReply(200, orjson.dumps(result["message"]), 0.0)
    if result["type"] == "errored":
        kind = result["error"].get("error", {}).get("type", "api_error")
        return RawReply(_STATUS.get(kind, 500), orjson.dumps(result["error"]), 0.0)
    return never_tried(f"the batch ended before this request: {result['type']}")


def _unix_time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
