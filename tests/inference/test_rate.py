"""The rate controller finds what an endpoint bears, stays just under it, and leaves it alone when asked to."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from loopback import Fault, LoopbackEndpoint, Messages, completion, status
from potstill.inference import rate
from potstill.inference.client import Answer, Client
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.journal import Journal
from potstill.inference.protocol import Capabilities, RateLimits, Request
from potstill.inference.rate import FIRST_LEVEL, LONGEST_TOLD_PAUSE_S, MOST_IN_FLIGHT, RateController, shared_controller

AskFor = Callable[..., Request]


class Endpoint:
    """A controller and an endpoint that allows so many in flight, in steps of one answer time; no clock but its own.

    serves: at most so many at once, the others wait in its queue.
    """

    def __init__(
        self, allows: int, *, serves: int = 10**6, bound: int = MOST_IN_FLIGHT, level: int = FIRST_LEVEL
    ) -> None:
        self.allows, self.serves, self.now_s = allows, serves, 0.0
        self.controller = RateController(bound, level, clock=lambda: self.now_s)
        self.answered = self.refused = 0

    async def rounds(self, count: int, *, retry_after_s: float | None = None) -> list[int]:
        """Fill all places, answer what is allowed, refuse the rest; the level after each round."""
        levels = []
        for _ in range(count):
            places = [await self.controller.acquire() for _ in range(self.controller.level)]
            for number, epoch in enumerate(places[::-1]):
                answered = number >= len(places) - self.allows
                self.answered, self.refused = self.answered + answered, self.refused + (not answered)
                latency_s = 0.2 * max(1.0, len(places) / self.serves)
                self.controller.release(
                    epoch, "answered" if answered else "refused", latency_s=latency_s, retry_after_s=retry_after_s
                )
            self.now_s = max(self.now_s + latency_s, self.controller.paused_until)
            levels.append(self.controller.level)
        return levels


async def test_without_a_refusal_the_level_doubles_each_round_up_to_the_bound() -> None:
    assert await Endpoint(allows=10**6).rounds(9) == [16, 32, 64, 128, 256, 512, 1024, 1024, 1024]
    assert await Endpoint(allows=10**6, bound=50).rounds(4) == [16, 32, 50, 50]


@pytest.mark.parametrize("allows", [1, 3, 7, 8, 9, 40, 63, 64, 65, 100, 127, 128, 500, 1000])
async def test_any_capacity_is_found_within_a_tenth_and_held_with_few_refusals(allows: int) -> None:
    endpoint = Endpoint(allows)
    await endpoint.rounds(50)  # ten seconds
    endpoint.answered = endpoint.refused = 0
    levels = await endpoint.rounds(300)
    assert sum(levels) / len(levels) >= 0.9 * allows
    assert max(levels) <= allows + max(1, allows // 16)
    assert endpoint.refused / (endpoint.answered + endpoint.refused) < 0.02


@pytest.mark.parametrize("serves", [1, 4, 8, 11, 50, 100, 128])
async def test_a_server_that_queues_in_place_of_refusing_is_not_swamped(serves: int) -> None:
    levels = await Endpoint(allows=10**6, serves=serves).rounds(300)
    assert all(serves <= level <= max(FIRST_LEVEL + 1, 2.5 * serves) for level in levels[100:])


async def test_a_wrong_number_of_the_user_is_corrected_in_both_directions() -> None:
    too_high = Endpoint(allows=64, bound=1000, level=1000)
    levels = await too_high.rounds(100)
    assert levels[-1] in range(58, 65)
    too_low = Endpoint(allows=64, bound=16, level=16)
    assert await too_low.rounds(3) == [16, 16, 16]


async def test_capacity_that_shrinks_and_comes_back_is_followed() -> None:
    endpoint = Endpoint(allows=200)
    await endpoint.rounds(100)
    endpoint.allows = 20
    assert (await endpoint.rounds(30))[-1] <= 21
    endpoint.allows = 200
    assert (await endpoint.rounds(2 * 60 * 5))[-1] >= 180


async def test_refusals_of_one_burst_lower_the_level_once() -> None:
    controller = RateController(64, 64)
    places = [await controller.acquire() for _ in range(64)]
    for epoch in places:
        controller.release(epoch, "refused")
    assert controller.level == 32


async def test_the_longer_a_refusal_costs_the_rarer_is_a_probe() -> None:
    patient, hasty = Endpoint(allows=64), Endpoint(allows=64)
    for endpoint, retry_after_s in ((patient, 2.0), (hasty, None)):
        await endpoint.rounds(10, retry_after_s=retry_after_s)
        endpoint.answered, endpoint.now_s, start_s = 0, endpoint.now_s, endpoint.now_s
        while endpoint.now_s < start_s + 300:
            await endpoint.rounds(1, retry_after_s=retry_after_s)
        assert endpoint.answered / (endpoint.now_s - start_s) >= 0.9 * 64 / 0.2


async def test_one_who_stops_waiting_takes_no_place() -> None:
    controller = RateController(1, 1)
    held = await controller.acquire()
    gone, stays = (asyncio.create_task(controller.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    controller.release(held, "answered")
    await stays
    assert controller.in_flight == 1


async def test_a_place_handed_to_one_who_is_cancelled_at_that_instant_is_not_lost() -> None:
    controller = RateController(1, 1)
    held = await controller.acquire()
    waits = asyncio.create_task(controller.acquire())
    await asyncio.sleep(0)
    controller.release(held, "answered")
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert controller.in_flight == 0


@pytest.mark.parametrize(
    ("limits", "pause_s"),
    [
        (None, 0),
        (RateLimits(), 0),
        (RateLimits(remaining_requests=1, reset_requests_s=9), 0),
        (RateLimits(remaining_requests=0, reset_requests_s=9), 9),
        (RateLimits(remaining_requests=0), 0),
        (RateLimits(remaining_tokens=500, reset_tokens_s=3), 0),
        (RateLimits(remaining_tokens=499, reset_tokens_s=3), 3),
        (RateLimits(remaining_requests=0, reset_requests_s=1, remaining_tokens=0, reset_tokens_s=3), 3),
        (RateLimits(remaining_requests=0, reset_requests_s=86400), LONGEST_TOLD_PAUSE_S),
    ],
)
def test_a_limit_that_is_used_up_pauses_all(limits: RateLimits | None, pause_s: float) -> None:
    controller = RateController(8, 8, clock=lambda: 100.0)
    controller.note_limits(limits, 500)
    assert max(controller.paused_until, 100.0) == 100.0 + pause_s


def test_all_who_ask_a_model_share_one_controller_while_one_of_them_lives() -> None:
    model, other = {"endpoint": "http://host/v1", "model": "a"}, {"endpoint": "http://host/v1", "model": "b"}
    first = shared_controller(model, None)
    assert shared_controller(dict(model), 64) is first
    assert (first.bound, first.level) == (64, 64)
    shared_controller(model, 8)
    assert first.bound == 64
    assert shared_controller(other, None) is not first
    del first
    gc.collect()
    assert shared_controller(model, None).level == FIRST_LEVEL


async def ask_many(client: Client, ask_for: AskFor, count: int, name: str = "row") -> list[Answer]:
    answers: list[Answer] = []
    await client.ask_all((ask_for(f"{name} {number}") for number in range(count)), answers.append)
    return answers


@pytest.mark.usefixtures("short_waits")
async def test_a_limit_of_a_real_endpoint_is_found_without_being_told(tmp_path: Path, ask_for: AskFor) -> None:
    async with LoopbackEndpoint(lambda messages: "yes", delay_s=0.02, allows=20) as server:
        engine = EndpointEngine(server.base_url, "m", None)
        with Journal(tmp_path) as journal:
            client = Client(engine, journal, concurrency=None, max_attempts=1)
            first = await ask_many(client, ask_for, 400)
            refused = server.refused
            second = await ask_many(client, ask_for, 600, "second")
        await engine.aclose()
    assert all(answer.reply is not None for answer in first + second)
    assert server.most_in_flight == 20
    assert 0 < refused < 100
    assert server.refused - refused < 0.05 * 600


async def test_users_of_one_model_are_bounded_together(tmp_path: Path, ask_for: AskFor) -> None:
    async with LoopbackEndpoint(lambda messages: "yes", delay_s=0.02) as server:
        engines = [EndpointEngine(server.base_url, "m", None) for _ in range(2)]
        with Journal(tmp_path / "a") as one, Journal(tmp_path / "b") as two:
            teacher, judge = Client(engines[0], one, concurrency=6), Client(engines[1], two, concurrency=6)
            await asyncio.gather(ask_many(teacher, ask_for, 40), ask_many(judge, ask_for, 40))
        for engine in engines:
            await engine.aclose()
    assert server.most_in_flight == 6


async def test_a_pause_is_for_the_endpoint_and_not_for_one_request(
    tmp_path: Path, ask_for: AskFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.inference.retry.FIRST_WAIT_S", 0.002)

    def refuse_row_9(messages: Messages, attempt: int) -> Fault | None:
        return status(429, retry_after=0.3) if messages[-1]["content"] == "row 9" and attempt == 1 else None

    async with LoopbackEndpoint(lambda messages: "yes", delay_s=0.01, fault=refuse_row_9) as server:
        engine = EndpointEngine(server.base_url, "m", None)
        with Journal(tmp_path) as journal:
            answers = await ask_many(Client(engine, journal, concurrency=2, max_attempts=1), ask_for, 30)
        await engine.aclose()
    assert all(answer.reply is not None for answer in answers)
    arrivals = [request.at for request in server.requests]
    assert max(later - earlier for earlier, later in pairwise(arrivals)) >= 0.3
    refused_at = next(request.at for request in server.requests if request.messages[-1]["content"] == "row 9")
    assert not [at for at in arrivals if refused_at + 0.1 < at < refused_at + 0.3]


@pytest.mark.usefixtures("short_waits")
async def test_headers_that_tell_of_an_empty_limit_are_heeded(tmp_path: Path, ask_for: AskFor) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
    told = Fault(body=completion("yes"), headers=headers)
    async with LoopbackEndpoint(
        lambda messages: "yes", fault=lambda m, n: told if m[-1]["content"] == "row 0" else None
    ) as server:
        engine = EndpointEngine(server.base_url, "m", None)
        with Journal(tmp_path) as journal:
            await ask_many(Client(engine, journal, concurrency=1), ask_for, 3)
        await engine.aclose()
    first, second, third = (request.at for request in server.requests)
    assert second - first >= 0.3
    assert third - second < 0.3


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("code", [429, 503, 529])
async def test_overload_with_a_time_to_come_back_is_no_failed_try(tmp_path: Path, ask_for: AskFor, code: int) -> None:
    busy = status(code, retry_after=0.01)
    async with LoopbackEndpoint(lambda messages: "yes", fault=lambda m, n: busy if n < 6 else None) as server:
        engine = EndpointEngine(server.base_url, "m", None)
        with Journal(tmp_path) as journal:
            answer = await Client(engine, journal, concurrency=1, max_attempts=1).ask(ask_for("a"))
        await engine.aclose()
    assert answer.reply is not None


def test_a_model_on_this_machine_has_its_slots_and_no_more(tmp_path: Path) -> None:
    class Local:
        identity = {"gguf": "0"}  # noqa: RUF012
        capabilities = Capabilities(choices=False, local=True, max_concurrency=3)

    with Journal(tmp_path) as journal:
        client = Client(Local(), journal, concurrency=None)  # type: ignore[arg-type]
        assert client.concurrency == 3
        assert rate.shared_controller(Local.identity, None).bound == MOST_IN_FLIGHT
