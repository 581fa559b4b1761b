"""What a vendor's batch API is asked for, whoever the vendor is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import orjson

from potstill.inference.batch_ledger import Batch
from potstill.inference.completion import error_body
from potstill.inference.protocol import Engine, RawReply, Request

# Vendors' own limits are 50,000 requests and 200 MB (OpenAI), 100,000 and 256 MB (Anthropic). A batch that fails as a whole
# costs its wait, and all its requests wait in memory, so ours are lower.
MOST_REQUESTS = 10_000
MOST_BYTES = 100 * 10**6

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BatchState:
    """How far a batch is, in requests. `why` and `code` say why it failed as a whole; `canceled`: somebody ended it."""

    status: Literal["running", "ended", "failed"]
    total: int = 0
    done: int = 0
    failed: int = 0
    canceled: bool = False
    why: str = ""
    code: str | None = None


class BatchRefusedError(Exception):
    """The vendor's API answered with another status than 200."""

    def __init__(self, raw: RawReply) -> None:
        super().__init__(f"status {raw.status}")
        self.raw = raw


class BodiedEngine(Engine, Protocol):
    """An engine whose requests have a body that can be sent in another way, too."""

    def body(self, request: Request) -> Body:
        """The request as it stands in a batch."""
        ...

    def learn(self, raw: RawReply, sent: Body) -> bool:
        """Whether a refused request is worth another try, because what was refused is left out from now on."""
        ...


class BatchService(Protocol):
    """One vendor's batch API for one model. All may raise `TransportError` or `BatchRefusedError`."""

    @property
    def engine(self) -> BodiedEngine:
        """Asks the same model at once, writes the bodies of its requests, and reads its replies."""
        ...

    async def submit(self, batch: Batch, bodies: Mapping[str, Body]) -> str:
        """Hand it in; the vendor's id."""
        ...

    async def find(self, batch: Batch, taken: Collection[str]) -> str | None:
        """The id under which the vendor has it already, None if it never arrived. taken: ids of other batches of ours."""
        ...

    async def poll(self, vendor_id: str) -> BatchState: ...

    async def results(self, vendor_id: str) -> Sequence[tuple[str, RawReply]]:
        """What came of a batch that has ended, by key, as far as anything came. A request that the vendor did not get to has
        status 408. How long it took is not theirs to tell."""
        ...


def never_tried(why: str) -> RawReply:
    """What a request is told that the vendor did not get to."""
    return RawReply(408, error_body(why), 0.0)


def read_json(raw: RawReply) -> dict[str, Any]:
    """The JSON object of a reply with status 200.

    Raises:
        BatchRefusedError: another status, or something else than an object.
    """
    if raw.status != 200:
        raise BatchRefusedError(raw)
    try:
        data = orjson.loads(raw.body)
    except orjson.JSONDecodeError:
        data = None
    if not isinstance(data, dict):
        raise BatchRefusedError(RawReply(502, error_body("no JSON object"), raw.latency_s))
    return data


def read_lines(raw: RawReply) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines.

    Raises:
        BatchRefusedError: another status than 200, or a broken line (a download that was cut off).
    """
    if raw.status != 200:
        raise BatchRefusedError(raw)
    try:
        return [orjson.loads(line) for line in raw.body.splitlines() if line.strip()]
    except orjson.JSONDecodeError as error:
        raise BatchRefusedError(RawReply(502, error_body("a line of the results is broken"), raw.latency_s)) from error
