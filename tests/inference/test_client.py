"""The client against a real server on loopback: what is retried, what is not, and that nothing received is asked for twice."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loopback import Fault, LoopbackEndpoint, Messages, completion, cut, drop, hang, raw, status
from potstill.errors import EndpointError
from potstill.inference import retry
from potstill.inference.client import Answer, Client, run_all
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.journal import Journal
from potstill.inference.protocol import Request

pytestmark = pytest.mark.usefixtures("short_waits")
AskFor = Callable[..., Request]


def shout(messages: Messages) -> str:
    return messages[-1]["content"].upper()


def first_time(fault: Fault) -> Callable[[Messages, int], Fault | None]:
    return lambda messages, attempt: fault if attempt == 1 else None


def always(fault: Fault) -> Callable[[Messages, int], Fault | None]:
    return lambda messages, attempt: fault


@asynccontextmanager
async def asking(
    base_url: str,
    folder: Path,
    *,
    concurrency: int = 4,
    max_attempts: int = 5,
    no_progress_s: float = 600,
    timeout_s: float = 20,
) -> AsyncIterator[Client]:
    engine = EndpointEngine(base_url, "m", None, timeout_s=timeout_s)
    try:
        with Journal(folder) as journal:
            yield Client(engine, journal, concurrency=concurrency, max_attempts=max_attempts, no_progress_s=no_progress_s)
    finally:
        await engine.aclose()


def texts(answers: list[Answer]) -> list[str | None]:
    return sorted((answer.reply.text if answer.reply else None for answer in answers), key=str)


async def test_all_are_answered_and_no_more_are_in_flight_than_allowed(tmp_path: Path, ask_for: AskFor) -> None:
    answers: list[Answer] = []
    async with LoopbackEndpoint(shout, delay_s=0.02) as server, asking(server.base_url, tmp_path, concurrency=3) as client:
        await client.ask_all((ask_for(f"row {n}") for n in range(20)), answers.append)
    assert texts(answers) == sorted(f"ROW {n}" for n in range(20))
    assert server.most_in_flight == 3
    assert not any(answer.from_journal for answer in answers)


async def test_requests_are_pulled_only_when_one_may_be_sent(tmp_path: Path, ask_for: AskFor) -> None:
    pulled = done = furthest_ahead = 0

    def source() -> Iterator[Request]:
        nonlocal pulled, furthest_ahead
        for number in range(30):
            pulled += 1
            furthest_ahead = max(furthest_ahead, pulled - done)
            yield ask_for(f"row {number}")

    def count(answer: Answer) -> None:
        nonlocal done
        done += 1

    async with LoopbackEndpoint(shout) as server, asking(server.base_url, tmp_path, concurrency=4) as client:
        await client.ask_all(source(), count)
    assert done == 30
    assert furthest_ahead <= 4


async def test_a_second_run_asks_only_for_what_is_new_in_any_order(tmp_path: Path, ask_for: AskFor) -> None:
    again: list[Answer] = []
    async with LoopbackEndpoint(shout) as server:
        async with asking(server.base_url, tmp_path) as client:
            await client.ask_all([ask_for(f"row {n}") for n in range(10)], lambda answer: None)
        async with asking(server.base_url, tmp_path) as client:
            await client.ask_all([ask_for(f"row {n}") for n in reversed(range(13))], again.append)
    assert texts(again) == sorted(f"ROW {n}" for n in range(13))
    assert len(server.requests) == 13
    assert sum(answer.from_journal for answer in again) == 10


async def test_samples_and_settings_are_requests_of_their_own(tmp_path: Path, ask_for: AskFor) -> None:
    async with LoopbackEndpoint(shout) as server, asking(server.base_url, tmp_path) as client:
        for request in (ask_for("a"), ask_for("a", sample=1), ask_for("a", temperature=0.5), ask_for("a")):
            await client.ask(request)
    assert len(server.requests) == 3


async def test_equal_requests_in_flight_share_one_call(tmp_path: Path, ask_for: AskFor) -> None:
    async with LoopbackEndpoint(shout, delay_s=0.05) as server, asking(server.base_url, tmp_path) as client:
        answers = await asyncio.gather(*(client.ask(ask_for("same")) for _ in range(8)))
    assert texts(list(answers)) == ["SAME"] * 8
    assert len(server.requests) == 1


async def test_one_who_stops_waiting_does_not_stop_the_others(tmp_path: Path, ask_for: AskFor) -> None:
    async with LoopbackEndpoint(shout, delay_s=0.1) as server, asking(server.base_url, tmp_path) as client:
        first = asyncio.create_task(client.ask(ask_for("same")))
        second = asyncio.create_task(client.ask(ask_for("same")))
        await asyncio.sleep(0.03)
        first.cancel()
        assert (await second).reply is not None
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [*(status(code) for code in (408, 409, 425, 500, 502, 503, 529)), cut(), drop(), raw(b'{"choices": [{"mess'), raw(b"[]")],
    ids=lambda fault: f"{fault.status}-{fault.cut}-{fault.body}",
)
async def test_a_passing_fault_is_tried_again(tmp_path: Path, ask_for: AskFor, fault: Fault) -> None:
    async with (
        LoopbackEndpoint(shout, fault=first_time(fault)) as server,
        asking(server.base_url, tmp_path, concurrency=1) as client,
    ):
        answers = [await client.ask(ask_for(text)) for text in "ab"]
    assert texts(answers) == ["A", "B"]
    assert len(server.requests) == 4


async def test_a_hanging_call_times_out_and_is_tried_again(tmp_path: Path, ask_for: AskFor) -> None:
    async with (
        LoopbackEndpoint(shout, fault=first_time(hang())) as server,
        asking(server.base_url, tmp_path, timeout_s=0.2) as client,
    ):
        assert (await client.ask(ask_for("a"))).reply is not None
    assert len(server.requests) == 2


async def test_what_is_broken_for_one_row_fails_that_row_after_the_tries(tmp_path: Path, ask_for: AskFor) -> None:
    async with (
        LoopbackEndpoint(shout, fault=lambda m, n: raw(b"<oops>") if m[-1]["content"] == "bad" else None) as server,
        asking(server.base_url, tmp_path, max_attempts=3) as client,
    ):
        bad, good = await client.ask(ask_for("bad")), await client.ask(ask_for("good"))
    assert bad.reply is None
    assert bad.failure is not None
    assert "3 tries" in bad.failure
    assert "<oops>" in bad.failure
    assert good.reply is not None
    assert len(server.requests) == 4


async def test_a_malformed_reply_stays_in_the_journal(tmp_path: Path, ask_for: AskFor) -> None:
    async with (
        LoopbackEndpoint(shout, fault=always(raw(b"not an answer"))) as server,
        asking(server.base_url, tmp_path, max_attempts=2) as client,
    ):
        await client.ask(ask_for("a"))
    with Journal(tmp_path) as journal:
        kept = journal.reply(ask_for("a").key({"endpoint": server.base_url, "model": "m"}))
        assert kept is not None
        assert kept.body == b"not an answer"
        assert journal.stats().outcomes == 2


async def test_a_429_is_waited_out_and_is_no_failed_try(tmp_path: Path, ask_for: AskFor) -> None:
    async with (
        LoopbackEndpoint(shout, fault=lambda m, n: status(429) if n <= 9 else None) as server,
        asking(server.base_url, tmp_path, max_attempts=2) as client,
    ):
        assert (await client.ask(ask_for("a"))).reply is not None
    assert len(server.requests) == 10


async def test_retry_after_is_honoured(tmp_path: Path, ask_for: AskFor) -> None:
    async with (
        LoopbackEndpoint(shout, fault=first_time(status(429, retry_after=0.4))) as server,
        asking(server.base_url, tmp_path) as client,
    ):
        assert (await client.ask(ask_for("a"))).reply is not None
    assert server.requests[1].at - server.requests[0].at >= 0.4


async def test_endless_refusal_stops_the_job(tmp_path: Path, ask_for: AskFor) -> None:
    async with (
        LoopbackEndpoint(shout, fault=always(status(429, "slow down"))) as server,
        asking(server.base_url, tmp_path, no_progress_s=0.3) as client,
    ):
        with pytest.raises(EndpointError, match="no answer for 0 s"):
            await client.ask(ask_for("a"))
    async with (
        LoopbackEndpoint(shout, fault=always(status(429, "daily limit", retry_after=86400))) as server,
        asking(server.base_url, tmp_path) as client,
    ):
        with pytest.raises(EndpointError, match="daily limit"):
            await client.ask(ask_for("a"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [400, 413, 422])
async def test_a_refused_row_fails_alone_with_the_endpoints_words(tmp_path: Path, ask_for: AskFor, code: int) -> None:
    message = "maximum context length is 4096 tokens"
    async with (
        LoopbackEndpoint(shout, fault=lambda m, n: status(code, message) if m[-1]["content"] == "long" else None) as server,
        asking(server.base_url, tmp_path) as client,
    ):
        answers: list[Answer] = []
        await client.ask_all([ask_for("long"), ask_for("short")], answers.append)
    failed = next(answer for answer in answers if answer.reply is None)
    assert failed.failure is not None
    assert message in failed.failure
    assert texts(answers) == [None, "SHORT"]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (status(401, "bad key"), "api_key_env"),
        (status(402, "pay"), "no credit left"),
        (status(403, "not yours"), "may not use this model"),
        (status(404, "no such page"), "ends in /v1"),
        (raw(b'{"error": {"message": "quota", "code": "insufficient_quota"}}', code=429), "no credit left"),
        (status(400, "Your credit balance is too low to access the API."), "no credit left"),
    ],
)
async def test_what_no_row_can_pass_stops_at_once(tmp_path: Path, ask_for: AskFor, fault: Fault, words: str) -> None:
    async with (
        LoopbackEndpoint(shout, fault=always(fault)) as server,
        asking(server.base_url, tmp_path, concurrency=1) as client,
    ):
        with pytest.raises(EndpointError) as raised:
            await client.ask_all((ask_for(f"row {n}") for n in range(50)), lambda answer: None)
    assert len(server.requests) == 1
    shown = str(raised.value)
    assert words in shown
    assert server.base_url in shown
    assert str(fault.status) in shown
    assert len(raised.value.lines()) <= 6


async def test_nobody_listening_is_said_plainly(tmp_path: Path, ask_for: AskFor) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with asking(f"http://127.0.0.1:{port}/v1", tmp_path) as client:
        with pytest.raises(EndpointError, match="does not answer") as raised:
            await client.ask(ask_for("a"))
    assert f"127.0.0.1:{port}" in str(raised.value)


async def test_an_endpoint_that_goes_away_stops_the_job_instead_of_failing_every_row(tmp_path: Path, ask_for: AskFor) -> None:
    answers: list[Answer] = []
    async with (
        LoopbackEndpoint(shout, fault=lambda m, n: drop() if int(m[-1]["content"]) >= 10 else None) as server,
        asking(server.base_url, tmp_path, max_attempts=2, concurrency=1) as client,
    ):
        with pytest.raises(EndpointError, match="does not answer"):
            await client.ask_all((ask_for(str(n)) for n in range(100)), answers.append)
    assert len([answer for answer in answers if answer.reply]) == 10
    assert len(server.requests) < 10 + 2 * 6


async def test_rows_that_an_endpoint_chokes_on_do_not_stop_the_job_though_nothing_else_is_left_to_ask(
    tmp_path: Path, ask_for: AskFor
) -> None:
    def choke(messages: Messages, attempt: int) -> Fault | None:
        return status(500, "internal error") if messages[-1]["content"].startswith("row") else None

    answers: list[Answer] = []
    async with (
        LoopbackEndpoint(shout, fault=choke) as server,
        asking(server.base_url, tmp_path, max_attempts=2, concurrency=3) as client,
    ):
        await client.ask_all((ask_for(f"row {n}") for n in range(12)), answers.append)
    assert [answer.reply for answer in answers] == [None] * 12
    assert all("internal error" in str(answer.failure) for answer in answers)
    assert sum(not request.messages[-1]["content"].startswith("row") for request in server.requests) <= 3


async def test_a_row_that_was_never_answered_is_asked_again_in_a_later_run(tmp_path: Path, ask_for: AskFor) -> None:
    broken = True
    async with LoopbackEndpoint(shout, fault=lambda m, n: raw(b"{}") if broken else None) as server:
        async with asking(server.base_url, tmp_path, max_attempts=1) as client:
            assert (await client.ask(ask_for("a"))).reply is None
        broken = False
        async with asking(server.base_url, tmp_path) as client:
            answer = await client.ask(ask_for("a"))
    assert answer.reply is not None
    assert not answer.from_journal


async def test_every_attempt_is_a_record(tmp_path: Path, ask_for: AskFor) -> None:
    faults = {1: status(503), 2: cut(), 3: raw(b"{}")}
    async with (
        LoopbackEndpoint(shout, fault=lambda m, n: faults.get(n)) as server,
        asking(server.base_url, tmp_path) as client,
    ):
        await client.ask(ask_for("a"))
    with Journal(tmp_path) as journal:
        stats = journal.stats()
    assert (stats.intents, stats.outcomes, stats.failures, stats.unresolved) == (4, 3, 1, 0)


async def test_a_reply_cut_by_length_is_an_answer_and_is_not_asked_again(tmp_path: Path, ask_for: AskFor) -> None:
    truncated = raw(completion("half a", finish_reason="length"))
    async with LoopbackEndpoint(shout, fault=always(truncated)) as server, asking(server.base_url, tmp_path) as client:
        answers = [await client.ask(ask_for("a")) for _ in range(2)]
    assert [answer.reply and answer.reply.finish_reason for answer in answers] == ["length", "length"]
    assert len(server.requests) == 1


async def test_a_reply_in_flight_when_all_is_cancelled_is_kept(tmp_path: Path, ask_for: AskFor) -> None:
    async with LoopbackEndpoint(shout, delay_s=0.3) as server:
        async with asking(server.base_url, tmp_path) as client:
            asked = asyncio.create_task(client.ask_all([ask_for(f"row {n}") for n in range(20)], lambda answer: None))
            await asyncio.sleep(0.1)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
        async with asking(server.base_url, tmp_path) as client:
            answers = [await client.ask(ask_for(f"row {n}")) for n in range(4)]
    assert len(server.requests) == 4
    assert all(answer.from_journal for answer in answers)


async def test_a_reply_in_flight_when_the_job_fails_is_kept(tmp_path: Path, ask_for: AskFor) -> None:
    async with LoopbackEndpoint(shout, delay_s=0.3, allows=2) as server:
        server._fault = lambda m, n: status(401) if m[-1]["content"] == "first" else None
        async with asking(server.base_url, tmp_path) as client:
            first = asyncio.create_task(client.ask(ask_for("first")))
            await asyncio.sleep(0.1)
            with pytest.raises(EndpointError):
                await run_all([wait_for(first), wait_for(client.ask(ask_for("second")))])
        async with asking(server.base_url, tmp_path) as client:
            assert (await client.ask(ask_for("second"))).from_journal


async def wait_for(answer: Awaitable[Answer]) -> None:
    await answer


async def test_nothing_is_sent_any_more_once_nobody_waits(
    tmp_path: Path, ask_for: AskFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.0)
    async with (
        LoopbackEndpoint(shout, delay_s=0.1, fault=always(status(500))) as server,
        asking(server.base_url, tmp_path) as client,
    ):
        asked = asyncio.create_task(client.ask(ask_for("a")))
        await asyncio.sleep(0.05)
        asked.cancel()
        await asyncio.wait([asked])
        assert asked.cancelled()
    assert len(server.requests) == 1


async def test_a_call_that_hangs_is_not_waited_for_long_at_the_end(
    tmp_path: Path, ask_for: AskFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.inference.client.GRACE_S", 0.1)
    async with LoopbackEndpoint(shout, fault=always(hang())) as server, asking(server.base_url, tmp_path) as client:
        async with asyncio.timeout(10):
            asked = asyncio.create_task(client.ask(ask_for("a")))
            await asyncio.sleep(0.05)
            asked.cancel()
            await asyncio.wait([asked])
    with Journal(tmp_path) as journal:
        assert journal.stats().unresolved == 1


async def test_some_calls_that_hang_hold_nobody_else_up(tmp_path: Path, ask_for: AskFor) -> None:
    hanging = {"row 3", "row 7"}
    answers: list[Answer] = []
    async with (
        LoopbackEndpoint(shout, fault=lambda m, n: hang() if n == 1 and m[-1]["content"] in hanging else None) as server,
        asking(server.base_url, tmp_path, timeout_s=0.5, concurrency=4) as client,
    ):
        await client.ask_all((ask_for(f"row {n}") for n in range(40)), answers.append)
    assert texts(answers) == sorted(f"ROW {n}" for n in range(40))
    assert [answer.reply.text for answer in answers if answer.reply][-2:] in (["ROW 3", "ROW 7"], ["ROW 7", "ROW 3"])
