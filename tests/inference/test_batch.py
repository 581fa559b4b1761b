"""Batches: asked together, found again, never sent twice; what fails, expires or is cut is dealt with like single requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from anthropic_server import error
from batch_servers import AnthropicBatchServer, OpenAIBatchServer
from loopback import Fault, Messages, drop, raw, status
from potstill.catalog import Price
from potstill.errors import CorruptFileError, EndpointError
from potstill.inference import Client, Journal
from potstill.inference.anthropic import AnthropicEngine
from potstill.inference.batch import BatchEngine, Pace
from potstill.inference.batch_anthropic import AnthropicBatches
from potstill.inference.batch_ledger import LEDGER_FILE, BatchLedger
from potstill.inference.batch_openai import OpenAIBatches
from potstill.inference.budget import Account, Budget, Ledger
from potstill.inference.client import Answer
from potstill.inference.dialogue import answer_row
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.protocol import Request, Sampling
from potstill.rows import Message

AskFor = Callable[..., Request]
Server = Any
QUICK = Pace(linger_s=0.05, gather_s=5.0, poll_s=0.01, tell_s=0.0, patience_s=5.0)

pytestmark = pytest.mark.usefixtures("short_waits")


def shout(messages: Messages) -> str:
    return messages[-1]["content"].upper()


@pytest.fixture(params=["openai", "anthropic"])
def vendor(request: pytest.FixtureRequest) -> str:
    if request.param == "anthropic":
        pytest.importorskip("anthropic")
    name: str = request.param
    return name


def make_server(vendor: str) -> Server:
    return (AnthropicBatchServer if vendor == "anthropic" else OpenAIBatchServer)(shout)


def server_error(vendor: str) -> Fault:
    return error(500, "api_error") if vendor == "anthropic" else status(500)


class Run:
    """What one process has: a journal, an engine, a client."""

    def __init__(self, server: Server, folder: Path, **options: Any) -> None:
        self.said: list[str] = []
        self.journal = Journal(folder)
        service: AnthropicBatches | OpenAIBatches
        if isinstance(server, AnthropicBatchServer):
            service = AnthropicBatches(AnthropicEngine(server.base_url, "m", None))
        else:
            service = OpenAIBatches(EndpointEngine(server.base_url, "m", None))
        account = options.pop("account", None)
        self.engine = BatchEngine(
            service, folder, kept=lambda key: self.journal.reply(key) is not None, pace=QUICK, say=self.said.append, **options
        )
        self.client = Client(
            self.engine, self.journal, concurrency=None, max_attempts=3, account=account, under_way=self.engine.under_way
        )

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        return list(await asyncio.gather(*(self.client.ask(request) for request in requests)))


@asynccontextmanager
async def running(server: Server, folder: Path, **options: Any):
    run = Run(server, folder, **options)
    try:
        yield run
    finally:
        await run.engine.aclose()
        run.journal.close()


async def dies(server: Server, folder: Path, requests: Sequence[Request], when: Callable[[Run], bool], **options: Any) -> None:
    """A run that asks, and is gone as soon as `when` holds: nothing of it is tidied up but what the system frees."""
    async with running(server, folder, **options) as run:
        asking = [asyncio.create_task(run.client._call(request.key(run.engine.identity), request, 1, None, resumed=False))
                  for request in requests]
        async with asyncio.timeout(20):
            while not when(run):  # noqa: ASYNC110  (what it waits for happens at the server)
                await asyncio.sleep(0.005)
        for task in [*run.engine._tasks, *asking]:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def texts(answers: Sequence[Answer]) -> list[str | None]:
    return [None if answer.reply is None else answer.reply.text for answer in answers]


async def test_requests_go_out_together_under_their_keys_and_are_kept(vendor: str, ask_for: AskFor, tmp_path: Path) -> None:
    requests = [ask_for(f"q{number}", temperature=0.5, max_tokens=9) for number in range(20)]
    async with make_server(vendor) as server:
        async with running(server, tmp_path) as run:
            answers = await run.ask(requests)
            keys = {request.key(run.engine.identity) for request in requests}
            assert run.journal.stats().intents == run.journal.stats().outcomes == 20
        async with running(server, tmp_path) as again:
            assert texts(await again.ask(requests)) == texts(answers)
    assert texts(answers) == [f"Q{number}" for number in range(20)]
    assert [set(batch.lines) for batch in server.batches] == [keys]
    body = next(iter(server.batches[0].lines.values()))
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.5, 9)
    assert not server.requests
    assert any("20 requests handed in" in line for line in run.said)
    assert any("20 of 20 requests answered" in line for line in run.said)
    assert not BatchLedger(tmp_path).open


async def test_a_batch_has_its_most(vendor: str, ask_for: AskFor, tmp_path: Path) -> None:
    async with make_server(vendor) as server, running(server, tmp_path, most_requests=8) as run:
        assert run.client.concurrency == 8
        answered: list[Answer] = []
        await run.client.ask_all((ask_for(f"q{number}") for number in range(20)), answered.append)
    assert len(answered) == 20
    assert [len(batch.lines) for batch in server.batches] == [8, 8, 4]


async def test_a_dialogue_takes_one_batch_a_turn(vendor: str, tmp_path: Path) -> None:
    rows = [(Message("user", f"a{n}"), Message("assistant", "gold"), Message("user", f"b{n}")) for n in range(5)]
    async with make_server(vendor) as server, running(server, tmp_path) as run:
        answers = await asyncio.gather(*(answer_row(run.client, row, 2, Sampling()) for row in rows))
    assert [answer.texts for answer in answers] == [[f"A{n}", f"B{n}"] for n in range(5)]
    assert [len(batch.lines) for batch in server.batches] == [5, 5]


async def test_a_batch_is_found_again_by_a_later_process(vendor: str, ask_for: AskFor, tmp_path: Path) -> None:
    requests = [ask_for(f"q{number}") for number in range(6)]
    async with make_server(vendor) as server:
        server.ending = lambda number: "running"
        await dies(server, tmp_path, requests, lambda run: any(batch.looks for batch in server.batches))
        server.ending = lambda number: "completed"
        async with running(server, tmp_path) as run:
            answers = await run.ask([*requests, ask_for("new")])
            stats = run.journal.stats()
    assert texts(answers) == ["Q0", "Q1", "Q2", "Q3", "Q4", "Q5", "NEW"]
    assert [len(batch.lines) for batch in server.batches] == [6, 1]
    assert (stats.intents, stats.outcomes, stats.unresolved) == (7, 7, 0)


async def test_a_process_that_died_between_sending_and_noting_sends_nothing_twice(
    vendor: str, ask_for: AskFor, tmp_path: Path
) -> None:
    requests = [ask_for(f"q{number}") for number in range(6)]
    async with make_server(vendor) as server:
        server.after = lambda call, number: drop() if call == "POST batches" else None
        server.before = lambda call, number: status(503) if call == "GET batches" else None  # nor could it look
        await dies(server, tmp_path, requests, lambda run: server.calls["GET batches"] > 0)
        assert [batch.vendor_id for batch in BatchLedger(tmp_path).open.values()] == [None]
        server.make({"other": {"messages": [{"role": "user", "content": "x"}]}})  # more batches than one page shows
        server.make({"other": {"messages": [{"role": "user", "content": "y"}]}})
        server.after = server.before = lambda call, number: None
        async with running(server, tmp_path) as run:
            answers = await run.ask(requests)
    assert texts(answers) == [f"Q{number}" for number in range(6)]
    assert len(server.batches) == 3


async def test_a_reply_to_sending_that_is_lost_is_looked_for_before_it_is_sent_again(
    vendor: str, ask_for: AskFor, tmp_path: Path
) -> None:
    async with make_server(vendor) as server:
        server.after = lambda call, number: drop() if call == "POST batches" else None
        async with running(server, tmp_path) as run:
            assert texts(await run.ask([ask_for("a"), ask_for("b")])) == ["A", "B"]
    assert len(server.batches) == 1


async def test_what_was_noted_and_never_sent_is_sent(vendor: str, ask_for: AskFor, tmp_path: Path) -> None:
    requests = [ask_for("a"), ask_for("b")]
    async with make_server(vendor) as server:
        server.before = lambda call, number: status(503)
        await dies(server, tmp_path, requests, lambda run: sum(server.calls.values()) > 0)
        assert len(BatchLedger(tmp_path).open) == 1
        server.before = lambda call, number: None
        async with running(server, tmp_path) as run:
            assert texts(await run.ask(requests)) == ["A", "B"]
            assert run.journal.stats().intents == 2
    assert len(server.batches) == 1


async def test_somebody_elses_batch_of_the_same_size_is_not_taken_for_ours(ask_for: AskFor, tmp_path: Path) -> None:
    pytest.importorskip("anthropic")
    requests = [ask_for("a"), ask_for("b")]
    async with make_server("anthropic") as server:
        server.before = lambda call, number: status(503)
        await dies(server, tmp_path, requests, lambda run: sum(server.calls.values()) > 0)
        server.before = lambda call, number: None
        body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
        server.make({"theirs-1": body, "theirs-2": body})
        async with running(server, tmp_path) as run:
            assert texts(await run.ask(requests)) == ["A", "B"]
    assert len(server.batches) == 2


async def test_a_failed_line_is_asked_again_as_often_as_a_single_request(vendor: str, ask_for: AskFor, tmp_path: Path) -> None:
    def fault(body: dict[str, Any], attempt: int) -> Fault | None:
        text = body["messages"][-1]["content"]
        return server_error(vendor) if text == "never" or (text == "once" and attempt == 1) else None

    async with make_server(vendor) as server:
        server.line_fault = fault
        async with running(server, tmp_path) as run:
            answers = await run.ask([ask_for("fine"), ask_for("once"), ask_for("never")])
    assert texts(answers) == ["FINE", "ONCE", None]
    assert "after 3 tries" in str(answers[2].failure)
    assert server.asked().count("never") == 3
    assert server.asked().count("once") == 2
    assert server.asked().count("fine") == 1


async def test_a_line_that_is_refused_is_final(vendor: str, ask_for: AskFor, tmp_path: Path) -> None:
    refused = error(400, "invalid_request_error", "prompt is too long") if vendor == "anthropic" else status(400, "too long")
    async with make_server(vendor) as server:
        server.line_fault = lambda body, attempt: refused
        async with running(server, tmp_path) as run:
            answers = await run.ask([ask_for("a")])
    assert "too long" in str(answers[0].failure)
    assert len(server.batches) == 1


async def test_a_parameter_that_lines_are_refused_for_is_left_out_of_the_next_batch(
    vendor: str, ask_for: AskFor, tmp_path: Path
) -> None:
    message = "`temperature` is deprecated for this model." if vendor == "anthropic" else "Unsupported value: 'temperature'"
    refused = error(400, "invalid_request_error", message) if vendor == "anthropic" else status(400, message)
    async with make_server(vendor) as server:
        server.line_fault = lambda body, attempt: refused if "temperature" in body else None
        async with running(server, tmp_path) as run:
            assert texts(await run.ask([ask_for("a"), ask_for("b")])) == ["A", "B"]
            assert run.journal.stats().outcomes == 2
    assert [["temperature" in body for body in batch.lines.values()] for batch in server.batches] == [[True] * 2, [False] * 2]


async def test_of_a_batch_that_expires_what_came_is_kept_and_the_rest_goes_into_another(
    vendor: str, ask_for: AskFor, tmp_path: Path
) -> None:
    async with make_server(vendor) as server:
        server.ending = lambda number: "expired" if number == 1 else "completed"
        async with running(server, tmp_path) as run:
            answers = await run.ask([ask_for(f"q{number}") for number in range(8)])
    assert texts(answers) == [f"Q{number}" for number in range(8)]
    assert [len(batch.lines) for batch in server.batches] == [8, 4]


async def test_a_batch_that_somebody_cancels_ends_the_job_and_what_came_is_kept(
    vendor: str, ask_for: AskFor, tmp_path: Path
) -> None:
    requests = [ask_for(f"q{number}") for number in range(8)]
    async with make_server(vendor) as server:
        server.ending = lambda number: "canceled" if number == 1 else "completed"
        async with running(server, tmp_path) as run:
            with pytest.raises(EndpointError, match="cancelled at the vendor's, with 4 requests left"):
                await run.client.ask_all(requests, lambda answer: None)
        async with running(server, tmp_path) as again:
            assert texts(await again.ask(requests)) == [f"Q{number}" for number in range(8)]
    assert [len(batch.lines) for batch in server.batches] == [8, 4]


@pytest.mark.parametrize("fault", [drop(), status(429, retry_after=0.01), status(502), raw(b"{")])
async def test_looking_at_a_batch_is_tried_until_there_is_an_answer(
    vendor: str, ask_for: AskFor, tmp_path: Path, fault: Fault
) -> None:
    async with make_server(vendor) as server:
        server.before = lambda call, number: fault if call.startswith("GET") and number in (1, 3, 4) else None
        async with running(server, tmp_path) as run:
            assert texts(await run.ask([ask_for("a"), ask_for("b")])) == ["A", "B"]
    assert len(server.batches) == 1


async def test_a_busy_vendor_is_handed_the_batch_later(vendor: str, ask_for: AskFor, tmp_path: Path) -> None:
    async with make_server(vendor) as server:
        server.before = lambda call, number: status(429) if call.startswith("POST") and number < 3 else None
        async with running(server, tmp_path) as run:
            assert texts(await run.ask([ask_for("a")])) == ["A"]
    assert len(server.batches) == 1


async def test_a_vendor_that_refuses_the_key_ends_the_job(vendor: str, ask_for: AskFor, tmp_path: Path) -> None:
    async with make_server(vendor) as server:
        server.before = lambda call, number: status(401, "bad key")
        async with running(server, tmp_path) as run:
            with pytest.raises(EndpointError, match="status 401"):
                await run.ask([ask_for("a")])
    assert not server.batches


async def test_an_api_that_does_not_answer_is_given_up_in_the_end(
    vendor: str, ask_for: AskFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_server(vendor) as server:
        server.before = lambda call, number: drop()
        async with running(server, tmp_path) as run:
            monkeypatch.setattr(run.engine._vendor, "_pace", Pace(0.01, 1.0, 0.01, 1.0, patience_s=0.1))
            with pytest.raises(EndpointError, match="gave no answer"):
                await run.ask([ask_for("a")])


async def test_a_batch_that_the_vendor_refuses_as_a_whole_says_why(ask_for: AskFor, tmp_path: Path) -> None:
    async with make_server("openai") as server:
        server.ending = lambda number: "failed"
        server.line_fault = lambda body, attempt: Fault(
            body=orjson.dumps({"code": "model_not_found", "message": "The model 'm' does not support batches.", "line": 1})
        )
        async with running(server, tmp_path) as run:
            with pytest.raises(EndpointError, match="refuses the batch") as raised:
                await run.ask([ask_for("a")])
    assert "does not support batches. (line 1)" in str(raised.value.found)
    assert not BatchLedger(tmp_path).open


async def test_a_batch_that_the_queue_has_no_room_for_is_sent_when_another_has_ended(ask_for: AskFor, tmp_path: Path) -> None:
    async with make_server("openai") as server:
        server.ending = lambda number: "failed" if number == 2 else "completed"
        server.line_fault = lambda body, attempt: None if body else Fault(
            body=orjson.dumps({"code": "token_limit_exceeded", "message": "Enqueued token limit reached"})
        )
        async with running(server, tmp_path, most_requests=4) as run:
            answered: list[Answer] = []
            first = asyncio.create_task(run.client.ask_all([ask_for(f"q{number}") for number in range(4)], answered.append))
            while not any(batch.looks for batch in server.batches):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            rest = [run.engine.generate(ask_for(f"r{number}")) for number in range(4)]
            assert {reply.status for reply in await asyncio.gather(*rest)} == {200}
            await first
    assert len(answered) == 4
    assert [len(batch.lines) for batch in server.batches] == [4, 4, 4]


async def test_where_too_much_is_queued_smaller_batches_follow(ask_for: AskFor, tmp_path: Path) -> None:
    async with make_server("openai") as server:
        server.ending = lambda number: "failed" if len(server.batches[number - 1].lines) > 2 else "completed"
        server.line_fault = lambda body, attempt: None if body else Fault(
            body=orjson.dumps({"code": "token_limit_exceeded", "message": "Enqueued token limit reached"})
        )
        async with running(server, tmp_path) as run:
            answers = await run.ask([ask_for(f"q{number}") for number in range(8)])
    assert texts(answers) == [f"Q{number}" for number in range(8)]
    assert [len(batch.lines) for batch in server.batches if len(batch.lines) <= 2] == [2] * 4


async def test_a_batch_that_the_vendor_has_forgotten_is_asked_anew(vendor: str, ask_for: AskFor, tmp_path: Path) -> None:
    requests = [ask_for("a"), ask_for("b")]
    async with make_server(vendor) as server:
        server.ending = lambda number: "running"
        await dies(server, tmp_path, requests, lambda run: any(batch.looks for batch in server.batches))
        server.batches.clear()
        server.ending = lambda number: "completed"
        async with running(server, tmp_path) as run:
            assert texts(await run.ask(requests)) == ["A", "B"]


async def test_a_batch_costs_its_share_and_a_restart_holds_nothing_back_twice(
    vendor: str, ask_for: AskFor, tmp_path: Path
) -> None:
    price = Price(1.0, 2.0).in_batches()
    requests = [ask_for(f"q{number}", max_tokens=100) for number in range(4)]
    worst = sum(Account(Ledger(), price).worst(request).usd for request in requests)
    ledger = Ledger(Budget(usd=worst * 1.01))
    async with make_server(vendor) as server:
        server.ending = lambda number: "running"
        async with running(server, tmp_path, account=Account(ledger, price)) as run:
            asking = [asyncio.create_task(run.client.ask(request)) for request in requests]
            while not any(batch.looks for batch in server.batches):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            run.client._shared.clear()
            for task in asking:
                task.cancel()
            await run.engine.aclose()
        server.ending = lambda number: "completed"
        again = Ledger(Budget(usd=worst * 1.01))
        async with running(server, tmp_path, account=Account(again, price)) as run:
            again.take(run.journal.spending, price)
            assert again.spent_usd == pytest.approx(worst)
            assert None not in texts(await run.ask(requests))
            read, written = (11, 1) if vendor == "anthropic" else (7, 1)
            spent = 4 * (read * price.input + written * price.output) / 1e6
            assert again.spent_usd == pytest.approx(spent)
    assert price == Price(0.5, 1.0, batch=1.0)
    assert len(server.batches) == 1


def test_a_torn_line_of_the_list_is_left_out_and_a_broken_one_is_told(tmp_path: Path) -> None:
    ledger = BatchLedger(tmp_path)
    first = ledger.submitted(ledger.intend(["ab"]), "batch_1")
    path = tmp_path / LEDGER_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"batch":"x","is":"inten')
    assert BatchLedger(tmp_path).open == {first.name: first}
    assert path.read_bytes() == whole
    path.write_bytes(b"{broken\n" + whole)
    with pytest.raises(CorruptFileError, match="is damaged"):
        BatchLedger(tmp_path)


async def test_a_request_that_nobody_waits_for_is_not_sent(ask_for: AskFor, tmp_path: Path) -> None:
    async with make_server("openai") as server, running(server, tmp_path) as run:
        waited_for: list[Awaitable[Answer]] = [run.client.ask(ask_for("kept"))]
        left = asyncio.create_task(run.engine.generate(ask_for("left")))
        await asyncio.sleep(0)
        left.cancel()
        assert texts(await asyncio.gather(*waited_for)) == ["KEPT"]
    assert server.asked() == ["kept"]
