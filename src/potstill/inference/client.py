"""The client: ask a model for what the journal does not hold yet, and keep asking while that is worth it.

What goes in: requests. What comes out: one `Answer` a request, with a reply or with the reason why there is none. Every reply
is in the journal before it is parsed, and a good one is never asked for again. What it costs: one call a request, more where
calls fail. Memory does not grow with the number of requests.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from potstill.errors import EndpointError
from potstill.inference import retry
from potstill.inference.account import Account, Bill
from potstill.inference.garbage import collected_rarely
from potstill.inference.journal import Journal
from potstill.inference.protocol import Engine, MalformedReplyError, Reply, Request, Sampling, TransportError
from potstill.inference.rate import RateController, shared_controller
from potstill.rows import Message

# This many requests in a row that used up all their tries, with not one answer in between, are no chance: the endpoint is down,
# or it chokes on just these rows. Such rows may be all that an earlier run has left to ask for, so it is asked something else.
HOPELESS_IN_A_ROW = 5
_HARMLESS = Request((Message("user", "Say yes."),), Sampling(max_tokens=8))
# How long a call in flight is waited for when nobody wants its answer any more: it is paid for, and a later run can use it.
GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request: a reply, or the reason why there is none, in words a user understands.

    key: what the journal knows the request by; None from who has no journal.
    """

    request: Request
    reply: Reply | None
    failure: str | None
    from_journal: bool
    key: str | None = None


@dataclass(slots=True)
class _Shared:
    """One call that all equal requests in flight wait for. left: nobody waits any more."""

    task: asyncio.Task[Answer] | None = None
    waiting: int = 0
    left: bool = False


class Client:
    """Asks one engine. How many requests are in flight is decided by the rate controller that all clients of a model share.

    Args:
        engine: Who is asked; the caller closes it.
        journal: Where every attempt is kept; the caller closes it.
        concurrency: The most requests in flight, and where to start; for an engine on this machine its slots. None: what the
            endpoint bears is found out.
        max_attempts: Failed tries after which a request is given up. Being told to slow down (status 429) is no failed try.
        no_progress_s: Seconds without a single answer, while waiting on refusals, after which the job is stopped.
        account: What its requests cost and may cost; None counts nothing (an untrained student, say).
        under_way: Whether the request of a key is at the engine since an earlier process, whose intent stands.

    json_schema: whether the model can be held to a JSON schema, as far as was known at the start.
    """

    def __init__(
        self, engine: Engine, journal: Journal, *, concurrency: int | None, max_attempts: int = 5, no_progress_s: float = 600.0,
        account: Account | None = None, under_way: Callable[[str], bool] = lambda key: False,
    ) -> None:
        self._engine, self._journal, self._account = engine, journal, account
        self._max_attempts, self._under_way = max_attempts, under_way
        self._no_progress_s = math.inf if engine.capabilities.batched else no_progress_s
        # Asked once: an endpoint that turns out not to take schemas must not get other questions after a restart.
        self.json_schema = engine.capabilities.json_schema
        self._identity = dict(engine.identity)
        self._name = str(self._identity.get("endpoint", "the model"))
        self._rate = _rate(engine, concurrency)
        self.concurrency = concurrency or self._rate.bound
        self._slots = asyncio.Semaphore(self.concurrency)
        self._shared: dict[str, _Shared] = {}
        self._at_endpoint: set[str] = set()
        self._answered = False
        self._hopeless = 0
        self._progress_at = time.monotonic()

    @property
    def local(self) -> bool:
        """Whether the model runs on this machine."""
        return self._engine.capabilities.local

    def held(self, request: Request) -> Answer | None:
        """The answer that the journal has to a request; None where it has none."""
        return self._from_journal(request.key(self._identity), request)

    async def ask(self, request: Request) -> Answer:
        """The answer to one request; equal requests in flight share one call.

        Whoever is cancelled while the call is at the endpoint waits for it, two seconds at most, so that it is kept.

        Raises:
            BudgetError: the budget is used up.
            EndpointError: the endpoint refuses every request, or does not answer at all.
        """
        key = request.key(self._identity)
        kept = self._from_journal(key, request)
        if kept is not None:
            return kept
        if not self._shared:
            self._progress_at = time.monotonic()
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _Shared()
            shared.task = asyncio.create_task(self._ask_in_turn(key, request, shared))
        assert shared.task is not None
        shared.waiting, shared.left = shared.waiting + 1, False
        try:
            return await asyncio.shield(shared.task)
        except asyncio.CancelledError:
            if shared.waiting == 1 and key in self._at_endpoint:
                shared.left = True
                await asyncio.wait((shared.task,), timeout=GRACE_S)
            raise
        finally:
            shared.waiting -= 1
            if shared.waiting == 0:
                shared.task.cancel()
                self._shared.pop(key, None)

    async def ask_all(self, requests: Iterable[Request], on_done: Callable[[Answer], None]) -> None:
        """Ask all, pulling a request only when one may be sent; `on_done` gets each answer as it comes, in no certain order.

        Raises:
            EndpointError: see `ask`; what was received until then is in the journal.
        """
        queue = iter(requests)

        async def work() -> None:
            for request in queue:
                on_done(await self.ask(request))

        await run_all(work() for _ in range(self.concurrency))

    def _from_journal(self, key: str, request: Request) -> Answer | None:
        raw = self._journal.reply(key)
        if raw is None:
            return None
        try:
            return Answer(request, self._engine.parse(raw), None, from_journal=True, key=key)
        except MalformedReplyError:
            return None

    async def _ask_in_turn(self, key: str, request: Request, shared: _Shared) -> Answer:
        async with self._slots:
            return await self._ask_until_done(key, request, shared)

    async def _ask_until_done(self, key: str, request: Request, shared: _Shared) -> Answer:
        failed = setbacks = 0
        while True:
            setbacks += 1
            outcome = await self._try_in_place(key, request, setbacks)
            if isinstance(outcome, Reply):
                self._note_progress(answered=True)
                return Answer(request, outcome, None, from_journal=False, key=key)
            if outcome.meaning == "stop":
                raise retry.stop_error(outcome, self._identity)
            if outcome.meaning == "row" or shared.left:
                self._note_progress(answered=False)
                return Answer(request, None, outcome.why, from_journal=False)
            failed += outcome.meaning == "again"
            if failed >= self._max_attempts:
                return await self._give_up(request, outcome)
            await self._wait(outcome, setbacks)

    async def _try_in_place(self, key: str, request: Request, attempt: int) -> Reply | retry.Setback:
        """One call, when the endpoint bears one more."""
        epoch = await self._rate.acquire(again=attempt > 1)
        outcome: Reply | retry.Setback | None = None
        try:
            outcome = await self._try_once(key, request, attempt)
        finally:
            if isinstance(outcome, Reply):
                self._rate.release(epoch, "answered", latency_s=outcome.latency_s)
            elif outcome is not None and outcome.meaning == "wait":
                self._rate.release(epoch, "refused", retry_after_s=outcome.retry_after_s)
            else:
                self._rate.release(epoch, "failed")
        return outcome

    async def _try_once(self, key: str, request: Request, attempt: int) -> Reply | retry.Setback:
        """One call within the budget; what it cost is known, or counts in full, when it is over.

        Raises:
            BudgetError: it could cost more than is left.
        """
        resumed = self._under_way(key)
        bill = None
        if self._account is not None:
            bill = self._account.reopen(request) if resumed else await self._account.open(request)
        try:
            return await self._call(key, request, attempt, bill, resumed=resumed)
        finally:
            if bill is not None:
                bill.close()

    async def _call(
        self, key: str, request: Request, attempt: int, bill: Bill | None, *, resumed: bool
    ) -> Reply | retry.Setback:
        """One call, journaled around: the intent before, what came back before it is parsed."""
        sampling = request.sampling
        prompt_bytes = sum(len(message.content.encode()) for message in request.messages)
        meta = {"attempt": attempt, "prompt_bytes": prompt_bytes, "max_tokens": sampling.max_tokens, "sample": request.sample}
        if not resumed:
            self._journal.append_intent(key, meta, price=None if bill is None else bill.at_most())
        self._at_endpoint.add(key)
        try:
            raw = await self._engine.generate(request)
        except TransportError as error:
            self._journal.append_failure(key, error.what, price=None if bill is None else bill.broke(error))
            return retry.from_error(error)
        finally:
            self._at_endpoint.discard(key)
        self._journal.append_outcome(key, raw, price=None if bill is None else bill.came_back(raw))
        self._rate.note_limits(raw.limits, sampling.max_tokens)
        if raw.status != 200:
            return retry.from_reply(raw, self._name, logprobs=request.top_logprobs > 0)
        try:
            return self._engine.parse(raw)
        except MalformedReplyError as error:
            return retry.from_error(error)

    def _note_progress(self, *, answered: bool) -> None:
        self._answered = self._answered or answered
        self._hopeless = 0
        self._progress_at = time.monotonic()

    async def _give_up(self, request: Request, last: retry.Setback) -> Answer:
        """The row has no answer; unless the endpoint has none for anyone, which ends the job."""
        self._hopeless += 1
        if (last.unreachable and not self._answered) or (self._hopeless >= HOPELESS_IN_A_ROW and not await self._is_alive()):
            raise EndpointError(
                "the endpoint does not answer" if last.unreachable else "the endpoint gives no answers",
                where=retry.place(self._identity),
                found=last.why,
                hint="see that it runs and that its address is right, then run again; what was received is kept",
            )
        return Answer(request, None, f"no answer after {self._max_attempts} tries: {last.why}", from_journal=False)

    async def _is_alive(self) -> bool:
        """Whether it answers a question that nobody can choke on."""
        self._hopeless = 0
        outcome = await self._try_in_place(_HARMLESS.key(self._identity), _HARMLESS, 1)
        return isinstance(outcome, Reply) or outcome.meaning in ("wait", "row")

    async def _wait(self, setback: retry.Setback, setbacks: int) -> None:
        """Until the next try of this request. A pause that the endpoint asked for is the rate controller's, and for all."""
        wait_s = retry.wait_s(setback, setbacks)
        if time.monotonic() + wait_s > self._progress_at + self._no_progress_s:
            raise EndpointError(
                f"the endpoint gave no answer for {self._no_progress_s:.0f} s, or asks to wait longer than that",
                where=retry.place(self._identity),
                found=setback.why,
                hint="lower 'concurrency' or wait until the limit is lifted, then run again; what was received is kept",
            )
        if setback.meaning != "wait" or setback.retry_after_s is None:
            await asyncio.sleep(wait_s)


def _rate(engine: Engine, concurrency: int | None) -> RateController:
    """A model in this process has as many places as slots, a batch has room for so many requests; the places of an endpoint
    are those that all its users share."""
    told = engine.capabilities
    if told.local or told.batched:
        slots = concurrency or told.max_concurrency or 1
        return RateController(slots, slots)
    return shared_controller(engine.identity, concurrency)


async def run_all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first error ends the others and is raised as itself, not as a group."""
    try:
        with collected_rarely():
            async with asyncio.TaskGroup() as group:
                for one in work:
                    group.create_task(one)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
