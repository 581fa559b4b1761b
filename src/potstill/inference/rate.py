"""Rate control: how many requests one endpoint is sent at once, and when it is sent none.

One controller serves all who ask the same model in this process. It knows nothing of the endpoint but what it is told: answers,
refusals (status 429, or 503 and 529 with Retry-After), and the limits in the headers of replies.

How the level is found: it starts at what the user said, otherwise low, and doubles a round until the endpoint refuses. A round
is as many answers, to requests sent since the level last changed, as there may be in flight. A refusal takes the level back to
the last one that went through a whole round, and is remembered. From there the gap between the two is halved, and what is left
of it is probed, ever more rarely while probes fail, so that the level stays just under the one that was refused. A plain AIMD
would average about 0.87 of the capacity. Refusals of requests that were sent before the level changed say nothing new.

Many servers never refuse, but queue. A higher level that brings no more answers a second (places by mean latency) is left again
as if it had been refused: what it adds waits in a queue, and at last runs into a timeout.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal
from weakref import WeakValueDictionary

from potstill.inference import retry
from potstill.inference.protocol import RateLimits

MOST_IN_FLIGHT = 1024  # of an endpoint of which the user says nothing
FIRST_LEVEL = 8
FIRST_PROBE_S = 5.0
LONGEST_PROBE_S = 120.0
# A probe that fails costs the pause the endpoint then asks for: at most a fiftieth of the time.
PAUSES_PER_PROBE = 50
# Of the answers a second that a higher level could bring, so much must come, or what it adds only waits in a queue.
WORTH_IT = 0.1
# Of a limit that is used up, as headers tell it; they are read wrongly more easily than a refusal.
LONGEST_TOLD_PAUSE_S = 60.0

Verdict = Literal["answered", "refused", "failed"]


class RateController:
    """Gives out places in flight; whoever takes one hands it back with what became of the request.

    Args:
        bound: The most in flight, whatever the endpoint would take.
        level: Where to start.
        clock: Seconds that only ever grow.
    """

    def __init__(self, bound: int, level: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.bound, self.level = bound, min(level, bound)
        self.in_flight = 0
        self.paused_until = 0.0
        self._clock = clock
        self._lock = threading.Lock()  # two event loops, each in a thread of its own, may ask the same endpoint
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._user_bound: int | None = None
        self._epoch = 0  # counts the changes of the level
        self._clean = 0  # answers to requests of this epoch in this round
        self._full = False  # whether all places were taken at once in this round
        self._proven = 0  # the highest level that a whole round was answered at, as far as is known
        self._ceiling: int | None = None  # the lowest level that was refused or brought nothing, while that is believed
        self._latency_s = 0.0  # summed over this round
        self._grown_from: int | None = None  # the level before, while it is not known what the higher one brings
        self._per_s = 0.0  # answers at the level before
        self._step = self.level
        self._cut_shift = 4
        self._probe_every_s = FIRST_PROBE_S
        self._probe_at = 0.0

    def allow(self, concurrency: int | None) -> None:
        """Take note of what one more user of the endpoint was told by theirs: the highest such number is the bound."""
        if concurrency is None:
            return
        with self._lock:
            self._user_bound = self.bound = max(concurrency, self._user_bound or 0)
            if self._ceiling is None:
                self.level = self._step = self.bound
            self.level = min(self.level, self.bound)
            self._wake()

    async def acquire(self, *, again: bool = False) -> int:
        """Wait for a place, and for the end of a pause; `again` goes before those who have not been sent yet.

        Returns:
            What `release` wants back.
        """
        with self._lock:
            waits = bool(self._waiting) or self.in_flight >= self.level
            if waits:
                place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                (self._waiting.appendleft if again else self._waiting.append)(place)
            else:
                self.in_flight += 1
        if waits:
            await self._wait_for(place)
        while self.paused_until > self._clock():
            await self._sit_out()
        return self._epoch

    def release(self, epoch: int, verdict: Verdict, *, latency_s: float = 0.0, retry_after_s: float | None = None) -> None:
        """Hand a place back.

        Args:
            epoch: What `acquire` returned.
            verdict: "failed" (a fault, a refused row) says nothing of the rate.
            latency_s: Of an answer.
            retry_after_s: Of a refusal: how long the endpoint asked to be left alone, all of it, not this request only.
        """
        with self._lock:
            if verdict == "answered":
                self._note_answer(epoch, latency_s)
            elif verdict == "refused":
                self._note_refusal(epoch, retry_after_s or 0.0)
                self._pause(retry_after_s or 0.0)
            self.in_flight -= 1
            self._wake()

    def note_limits(self, limits: RateLimits | None, tokens: int) -> None:
        """Send nothing while a limit is used up by what the endpoint itself says; `tokens` is what a request may need."""
        if limits is None:
            return
        with self._lock:
            if limits.remaining_requests is not None and limits.remaining_requests < 1:
                self._pause(min(limits.reset_requests_s or 0.0, LONGEST_TOLD_PAUSE_S))
            if limits.remaining_tokens is not None and limits.remaining_tokens < tokens:
                self._pause(min(limits.reset_tokens_s or 0.0, LONGEST_TOLD_PAUSE_S))

    def _pause(self, pause_s: float) -> None:
        self.paused_until = max(self.paused_until, self._clock() + pause_s)

    def _note_answer(self, epoch: int, latency_s: float) -> None:
        """Count towards a clean round; only rounds in which the level was used up tell whether it is borne."""
        if epoch != self._epoch:
            return
        self._clean += 1
        self._latency_s += latency_s
        self._full = self._full or self.in_flight >= self.level
        if self._clean >= self.level and self._full:
            self._end_round(self.level * self._clean / self._latency_s if self._latency_s else 0.0)

    def _end_round(self, per_s: float) -> None:
        """All were answered; `per_s` a second."""
        self._start_round()
        before, self._grown_from = self._grown_from, None
        if before is not None and 0.0 < per_s < self._per_s * (1 + WORTH_IT * (self.level / before - 1)):
            self._retreat(before, 0.0)
            return
        self._per_s = per_s
        self._proven, self._cut_shift = self.level, 4
        if self._ceiling is not None and self.level >= self._ceiling:  # what was refused once is borne now
            self._ceiling, self._probe_every_s = None, FIRST_PROBE_S
        higher = self._next_level()
        if higher > self.level:
            self._grown_from = self.level
            self._change_level(higher)

    def _next_level(self) -> int:
        if self._ceiling is None:
            step, self._step = self._step, 2 * self._step
            return min(self.bound, self.level + step)
        gap = self._ceiling - self.level
        if gap > max(1, self.level // 16):
            return min(self.bound, self.level + gap // 2)
        if self._clock() >= self._probe_at:
            return min(self.bound, self.level + max(1, gap // 2))
        return self.level

    def _note_refusal(self, epoch: int, retry_after_s: float) -> None:
        if epoch != self._epoch:
            return
        refused = self.level
        if refused > self._proven:
            lower = max(self._proven, refused // 2)
        else:  # it bore this once: go down slowly at first, then fast
            lower = refused - max(1, refused >> self._cut_shift)
            self._cut_shift = max(1, self._cut_shift - 1)
            self._proven = 0
        self._retreat(max(1, lower), retry_after_s)

    def _retreat(self, lower: int, retry_after_s: float) -> None:
        """Go down, remember from where, and come back there ever more rarely."""
        self._ceiling, self._step, self._grown_from = self.level, 1, None
        self._probe_every_s = min(LONGEST_PROBE_S, max(2 * self._probe_every_s, PAUSES_PER_PROBE * retry_after_s))
        self._probe_at = self._clock() + self._probe_every_s
        self._change_level(lower)

    def _change_level(self, level: int) -> None:
        self.level = level
        self._epoch += 1
        self._start_round()

    def _start_round(self) -> None:
        self._clean, self._full, self._latency_s = 0, False, 0.0

    def _wake(self) -> None:
        while self._waiting and self.in_flight < self.level:
            place = self._waiting.popleft()
            if place.done():  # nobody waits for it any more
                continue
            loop = place.get_loop()
            if loop.is_closed():
                continue
            self.in_flight += 1
            if loop is _running_loop():
                place.set_result(None)
            else:
                loop.call_soon_threadsafe(self._hand_over, place)

    def _hand_over(self, place: asyncio.Future[None]) -> None:
        if place.done():
            self._give_back()
        else:
            place.set_result(None)

    async def _wait_for(self, place: asyncio.Future[None]) -> None:
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._give_back()
            raise

    async def _sit_out(self) -> None:
        """Keep the place, and send nothing until the pause is over, which may be made longer; not all at the same instant."""
        try:
            left_s = self.paused_until - self._clock()
            await asyncio.sleep(left_s + random.uniform(0, retry.FIRST_WAIT_S))
        except asyncio.CancelledError:
            self._give_back()
            raise

    def _give_back(self) -> None:
        with self._lock:
            self.in_flight -= 1
            self._wake()


_controllers: WeakValueDictionary[Hashable, RateController] = WeakValueDictionary()
_controllers_lock = threading.Lock()


def shared_controller(identity: Mapping[str, Any], concurrency: int | None) -> RateController:
    """The one controller of an endpoint and model, for as long as anybody in this process holds it.

    Args:
        concurrency: What the user said of it; None leaves all to the controller.
    """
    key = tuple(sorted((name, str(value)) for name, value in identity.items()))
    with _controllers_lock:
        controller = _controllers.get(key)
        if controller is None:
            controller = _controllers[key] = RateController(MOST_IN_FLIGHT, FIRST_LEVEL)
    controller.allow(concurrency)
    return controller


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
