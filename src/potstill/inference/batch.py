"""An engine that collects requests and asks them through a vendor's batch API: half the price, within 24 hours.

What goes in: requests, one by one, as to any engine; each waits. What comes out: their replies, when the batch that they went
in has ended. When no new request has come for a while, all that wait go out together, so a dialogue of several turns takes one
batch a turn. What it costs: nothing beyond the batch itself; memory for the requests that wait.

A batch is noted before it is sent (`BatchLedger`), under the keys of its requests. A later process finds it again, waits for
it, and sends none of its requests a second time, even if the process before died between sending and noting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from potstill.errors import EndpointError
from potstill.inference import retry
from potstill.inference.batch_ledger import Batch, BatchLedger
from potstill.inference.batch_service import MOST_BYTES, MOST_REQUESTS, BatchService, BatchState, Body, never_tried
from potstill.inference.batch_vendor import GONE, Pace, PatientVendor
from potstill.inference.protocol import Capabilities, RawReply, Reply, Request

_TOO_MUCH_QUEUED = "token_limit_exceeded"


@dataclass(slots=True)
class _Waiting:
    """A request that somebody waits for."""

    request: Request
    future: asyncio.Future[RawReply]


class BatchEngine:
    """Asks one model through batches.

    Args:
        service: The vendor's batch API.
        folder: Of the journal; the list of batches lies in it.
        kept: Whether the journal holds a reply to the request of a key.
        say: Told what becomes of each batch.
    """

    def __init__(
        self, service: BatchService, folder: Path, *, kept: Callable[[str], bool], pace: Pace | None = None,
        most_requests: int = MOST_REQUESTS, say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._service, self._say, self._pace = service, say, pace or Pace()
        self._most_requests = most_requests
        self._identity = dict(service.engine.identity)
        self._ledger = BatchLedger(folder)
        self._batch_of: dict[str, Batch] = {}
        for batch in list(self._ledger.open.values()):
            left = [key for key in batch.keys if not kept(key)]
            if not left:
                self._ledger.settled(batch)
            self._batch_of |= dict.fromkeys(left, batch)
        self._followed: set[str] = set()
        self._waiting: dict[str, _Waiting] = {}
        self._ready: dict[str, RawReply] = {}
        self._collected: dict[str, Body] = {}
        self._collected_bytes, self._first_at = 0, 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._vendor = PatientVendor(service, self._ledger, self._pace, say)

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._identity

    @property
    def capabilities(self) -> Capabilities:
        return replace(self._service.engine.capabilities, batched=True, max_concurrency=self._most_requests)

    def under_way(self, key: str) -> bool:
        """Whether an earlier process has handed in the request of this key already, and nobody has taken its reply yet."""
        return key in self._ready or (key in self._batch_of and key not in self._waiting)

    async def generate(self, request: Request) -> RawReply:
        """Wait for the reply, for hours it may be.

        Raises:
            EndpointError: the vendor refuses the batch or does not answer; what was handed in is found again later.
        """
        key = request.key(self._identity)
        if key in self._ready:
            return self._ready.pop(key)
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(request, asyncio.get_running_loop().create_future())
            if key in self._batch_of:
                self._resume(self._batch_of[key])
            else:
                self._collect(key, request)
        try:
            return await asyncio.shield(waiting.future)
        except asyncio.CancelledError:
            self._forget(key)
            raise

    def parse(self, raw: RawReply) -> Reply:
        return self._service.engine.parse(raw)

    async def aclose(self) -> None:
        """Stop waiting. Batches that are under way go on at the vendor's."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._service.engine.aclose()

    def _collect(self, key: str, request: Request) -> None:
        body = self._service.engine.body(request)
        size = len(orjson.dumps(body)) + 128  # with what a line has around it
        if self._collected and self._collected_bytes + size > MOST_BYTES:
            self._flush()
        if not self._collected:
            self._first_at = time.monotonic()
        self._collected[key] = body
        self._collected_bytes += size
        if self._timer is not None:
            self._timer.cancel()
        if len(self._collected) >= self._most_requests:
            self._flush()
        else:
            left_s = self._first_at + self._pace.gather_s - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(min(self._pace.linger_s, max(0.0, left_s)), self._flush)

    def _flush(self) -> None:
        """Send what was collected."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, bodies = None, self._collected
        self._collected, self._collected_bytes = {}, 0
        if bodies:
            self._start(bodies, lambda: self._hand_in(bodies))

    def _resume(self, batch: Batch) -> None:
        """Wait for a batch of an earlier process, once somebody asks for one of its requests."""
        if batch.name not in self._followed:
            self._followed.add(batch.name)
            self._start(batch.keys, lambda: self._find_and_follow(batch))

    def _start(self, keys: Collection[str], make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Work in the background; its failure is the failure of all who wait for these keys."""

        async def work() -> None:
            try:
                await make()
            except Exception as error:  # noqa: BLE001  (it is raised where the requests are waited for)
                self._followed -= {self._batch_of[key].name for key in keys if key in self._batch_of}
                self._raise_in(keys, error)

        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_in(self, bodies: Mapping[str, Body]) -> None:
        batch = self._ledger.intend(bodies)
        self._followed.add(batch.name)
        self._batch_of |= dict.fromkeys(bodies, batch)
        batch = self._ledger.submitted(batch, await self._vendor.submit(batch, bodies))
        self._say(f"batch {batch.vendor_id}: {len(bodies)} requests handed in")
        await self._follow(batch, bodies)

    async def _find_and_follow(self, batch: Batch) -> None:
        """A batch of an earlier process, which may have died before it was sent."""
        if batch.vendor_id is None:
            found = await self._vendor.find(batch)
            if found is None:
                self._let_go(batch)
                return
            batch = self._ledger.submitted(batch, found)
        self._say(f"batch {batch.vendor_id}: found again, with {len(batch.keys)} requests")
        await self._follow(batch, {})

    async def _follow(self, batch: Batch, bodies: Mapping[str, Body]) -> None:
        """Wait until it has ended, and hand out what came."""
        vendor_id = str(batch.vendor_id)
        state = await self._vendor.wait_for_end(vendor_id)
        if state.status == "failed":
            await self._fail(batch, state)
            return
        took_s = max(0.0, time.time() - batch.at)
        came = await self._vendor.results(vendor_id)
        results = {key: replace(raw, latency_s=took_s) for key, raw in came}
        if results and not results.keys() & batch.keys:  # somebody else's, taken for the one that never arrived
            self._let_go(batch)
            return
        await self._hand_out(batch, bodies, results, state)

    async def _hand_out(
        self, batch: Batch, bodies: Mapping[str, Body], results: Mapping[str, RawReply], state: BatchState
    ) -> None:
        good = sum(raw.status == 200 for raw in results.values())
        self._say(f"batch {batch.vendor_id}: ended, {good} of {len(batch.keys)} requests answered")
        left: list[str] = []
        asked = {key: self._waiting[key].request for key in batch.keys if key in self._waiting}
        sent = {key: bodies.get(key) or self._service.engine.body(request) for key, request in asked.items()}
        for key in batch.keys:
            raw = results.get(key, never_tried("the batch ended without a reply to this request"))
            self._batch_of.pop(key, None)
            if state.canceled and raw.status == 408:
                left.append(key)
            elif key not in asked:
                self._ready |= {key: raw} if raw.status == 200 else {}
            elif self._service.engine.learn(raw, sent[key]):
                self._collect(key, asked[key])
            else:
                self._answer(key, raw)
        await asyncio.sleep(0.1)  # whoever waited writes the reply into the journal as soon as it may run
        if not self._ready.keys() & batch.keys:
            self._ledger.settled(batch)
        if left:
            self._raise_in(left, EndpointError(
                f"the batch was cancelled at the vendor's, with {len(left)} requests left",
                where=retry.place(self._identity), found=f"batch {batch.vendor_id}",
                hint="what was answered is kept; run again to have the rest asked in a new batch",
            ))

    async def _fail(self, batch: Batch, state: BatchState) -> None:
        """A batch of which nothing was tried. Where only too much was queued at once, it is sent when another batch has ended,
        or in smaller ones if there is none.

        Raises:
            EndpointError: the vendor refuses it for another reason.
        """
        if state.code == GONE:
            self._let_go(batch)
            return
        if state.code == _TOO_MUCH_QUEUED and (self._vendor.busy or len(batch.keys) > 1):
            if self._vendor.busy:
                await self._vendor.one_more_ended()
            else:
                self._most_requests = min(self._most_requests, len(batch.keys) // 2)
                self._say(f"batch {batch.vendor_id}: the account's queue has no room for it; {self._most_requests} at a time")
            self._let_go(batch)
            return
        self._ledger.settled(batch)
        for key in batch.keys:
            self._batch_of.pop(key, None)
        raise EndpointError(
            "the vendor refuses the batch", where=retry.place(self._identity), found=state.why,
            hint="nothing of it was asked or is paid for",
        )

    def _let_go(self, batch: Batch) -> None:
        """What went in no batch after all is collected anew."""
        self._ledger.settled(batch)
        for key in batch.keys:
            self._batch_of.pop(key, None)
            waiting = self._waiting.get(key)
            if waiting is not None:
                self._collect(key, waiting.request)

    def _answer(self, key: str, raw: RawReply) -> None:
        waiting = self._waiting.pop(key)
        if not waiting.future.done():
            waiting.future.set_result(raw)

    def _raise_in(self, keys: Collection[str], error: Exception) -> None:
        for key in keys:
            waiting = self._waiting.pop(key, None)
            if waiting is not None and not waiting.future.done():
                waiting.future.set_exception(error)

    def _forget(self, key: str) -> None:
        """Nobody waits any more: what was not sent yet need not be."""
        self._waiting.pop(key, None)
        self._collected.pop(key, None)
