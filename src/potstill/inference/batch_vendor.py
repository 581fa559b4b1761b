"""A vendor's batch API, asked with the patience that batches need: a lost connection is no reason to lose a batch.

Every call is tried until there is an answer, or until the API has given none for so long that a person should know. What is
refused for good (a wrong key, a wrong request) is an error at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from potstill.errors import EndpointError
from potstill.inference import retry
from potstill.inference.batch_ledger import Batch, BatchLedger
from potstill.inference.batch_service import BatchRefusedError, BatchService, BatchState, Body
from potstill.inference.protocol import RawReply, TransportError

T = TypeVar("T")
GONE = "gone"


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. linger: without a new request, until those that wait are sent; gather: the longest that a request waits for
    that. poll: between two looks at a batch; tell: between two lines about it. patience: of an API that does not answer."""

    linger_s: float = 2.0
    gather_s: float = 60.0
    poll_s: float = 30.0
    tell_s: float = 300.0
    patience_s: float = 3600.0


class PatientVendor:
    """The batch API of one model.

    Args:
        ledger: All batches of ours, to tell them from one that is looked for.
        say: Told how far batches are.
    """

    def __init__(self, service: BatchService, ledger: BatchLedger, pace: Pace, say: Callable[[str], None]) -> None:
        self._service, self._ledger, self._pace, self._say = service, ledger, pace, say
        self._identity = dict(service.engine.identity)
        self._running, self._ended = 0, asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether a batch of this process is being worked on."""
        return self._running > 0

    async def one_more_ended(self) -> None:
        """Wait until one of them has ended."""
        await self._ended.wait()

    async def submit(self, batch: Batch, bodies: Mapping[str, Body]) -> str:
        """Hand it in; where it is not certain that it did not arrive, look before it is sent again."""
        maybe_there = False
        failing_since: float | None = None
        while True:
            try:
                found = await self._service.find(batch, self._taken()) if maybe_there else None
                return found or await self._service.submit(batch, bodies)
            except (TransportError, BatchRefusedError) as error:
                maybe_there = maybe_there or not isinstance(error, BatchRefusedError) or error.raw.status >= 500
                failing_since = failing_since or time.monotonic()
                await self._bear(error, failing_since)

    async def find(self, batch: Batch) -> str | None:
        """The id under which the vendor has it, None if it never arrived."""
        return await self._patiently(lambda: self._service.find(batch, self._taken()))

    async def wait_for_end(self, vendor_id: str) -> BatchState:
        """Look at a batch until it has ended, and say now and then how far it is."""
        started = told = time.monotonic()
        running = False
        try:
            while (state := await self._patiently(lambda: self._poll(vendor_id))).status == "running":
                self._running += not running
                running = True
                if time.monotonic() - told > self._pace.tell_s:
                    told = time.monotonic()
                    self._say(
                        f"batch {vendor_id}: {state.done} of {state.total} requests answered, {state.failed} failed, "
                        f"after {(told - started) / 60:.0f} min"
                    )
                await asyncio.sleep(self._pace.poll_s)
            return state
        finally:
            self._running -= running
            if running:
                self._ended.set()
                self._ended = asyncio.Event()

    async def _poll(self, vendor_id: str) -> BatchState:
        """How far it is; one that the vendor no longer knows was deleted, or ended weeks ago."""
        try:
            return await self._service.poll(vendor_id)
        except BatchRefusedError as error:
            if error.raw.status == 404:
                return BatchState("failed", code=GONE)
            raise

    async def results(self, vendor_id: str) -> Sequence[tuple[str, RawReply]]:
        """See `BatchService.results`."""
        return await self._patiently(lambda: self._service.results(vendor_id))

    async def _patiently(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask until there is an answer."""
        failing_since: float | None = None
        while True:
            try:
                return await ask()
            except (TransportError, BatchRefusedError) as error:
                failing_since = failing_since or time.monotonic()
                await self._bear(error, failing_since)

    async def _bear(self, error: TransportError | BatchRefusedError, failing_since: float) -> None:
        """Wait until it is worth another try.

        Raises:
            EndpointError: it is not.
        """
        refused = isinstance(error, BatchRefusedError)
        name = str(self._identity.get("endpoint"))
        setback = retry.from_reply(error.raw, name) if isinstance(error, BatchRefusedError) else retry.from_error(error)
        if refused and setback.meaning in ("row", "stop"):
            raise retry.stop_error(setback, self._identity) from error
        if time.monotonic() - failing_since > self._pace.patience_s:
            raise EndpointError(
                f"the vendor's batch API gave no answer for {self._pace.patience_s / 60:.0f} min",
                where=retry.place(self._identity), found=setback.why,
                hint="run again later: batches that are under way are found again, and nothing is paid for twice",
            ) from error
        await asyncio.sleep(setback.retry_after_s or self._pace.poll_s)

    def _taken(self) -> set[str]:
        return {batch.vendor_id for batch in self._ledger.open.values() if batch.vendor_id is not None}
