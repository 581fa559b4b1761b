"""Batches: asked together, found again, never sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from inference.batch_runs import AskFor, dies, make_server, running, texts
from loopback import drop, status
from potstill.catalog import Price
from potstill.errors import CorruptFileError
from potstill.inference.account import Account
from potstill.inference.batch_ledger import LEDGER_FILE, BatchLedger
from potstill.inference.budget import Budget, Ledger
from potstill.inference.client import Answer
from potstill.inference.dialogue import answer_row
from potstill.inference.protocol import Sampling
from potstill.rows import Message

pytestmark = pytest.mark.usefixtures("short_waits")


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
