"""What fails in a batch, expires or is cut is dealt with like single requests."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from anthropic_server import error
from inference.batch_runs import AskFor, dies, make_server, running, server_error, texts
from loopback import Fault, drop, raw, status
from potstill.errors import EndpointError
from potstill.inference.batch import Pace
from potstill.inference.batch_ledger import BatchLedger
from potstill.inference.client import Answer

pytestmark = pytest.mark.usefixtures("short_waits")


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
