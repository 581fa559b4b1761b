"""The ledger of a run and the accounts of its models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from billing import VendorsBill
from loopback import Fault, LoopbackEndpoint, Messages, completion, cut, drop, hang, raw, status
from potstill.catalog import Price, ResolvedModel
from potstill.errors import BudgetError, EndpointError
from potstill.inference.account import Account
from potstill.inference.budget import Budget, Ledger
from potstill.inference.client import Answer, Client
from potstill.inference.compaction import compact_journal
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.journal import Journal
from potstill.inference.protocol import RawReply, Request, Sampling
from potstill.inference.spending import Cost
from potstill.rows import Message

PRICE = Price(1.0, 2.0)
WORST, ACTUAL = Cost.of(100, 100, PRICE), Cost.of(10, 10, PRICE)  # 300 and 30 millionths of a dollar


def ask(text: str, max_tokens: int = 10) -> Request:
    return Request((Message("user", text),), Sampling(max_tokens=max_tokens))


def reply(body: bytes, code: int = 200) -> RawReply:
    return RawReply(code, body, 0.1)


async def test_what_fits_exactly_is_sent_and_a_token_more_is_not() -> None:
    for limits in (Budget(usd=0.0006), Budget(tokens=400)):
        ledger = Ledger(limits)
        for _ in range(2):
            await ledger.reserve(WORST)
            ledger.settle(WORST, WORST)
        with pytest.raises(BudgetError, match="used up"):
            await ledger.reserve(Cost.of(1, 0, PRICE))
    assert (ledger.spent_tokens, ledger.spent_usd) == (400, 0.0006)


async def test_a_request_waits_while_one_in_flight_may_turn_out_cheaper() -> None:
    ledger = Ledger(Budget(tokens=300))
    await ledger.reserve(WORST)
    waiting = asyncio.create_task(ledger.reserve(WORST))
    await asyncio.sleep(0)
    assert not waiting.done()
    ledger.settle(WORST, ACTUAL)
    await waiting
    assert ledger.spent_tokens == ACTUAL.tokens + WORST.tokens


async def test_those_who_wait_are_told_when_nothing_made_room() -> None:
    ledger = Ledger(Budget(usd=0.0005))
    await ledger.reserve(WORST)
    waiting = [asyncio.create_task(ledger.reserve(WORST)) for _ in range(3)]
    await asyncio.sleep(0)
    ledger.settle(WORST, None)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [BudgetError] * 3
    shown = str(results[0])
    assert "$0.00030 spent ($0.00030 of it held back for requests whose outcome is not known)" in shown
    assert "may cost $0.00030; the limit is $0.00050" in shown
    assert "generation.budget_usd" in shown


async def test_a_price_that_nobody_knows_counts_in_tokens() -> None:
    ledger = Ledger(Budget(tokens=150))
    account = Account(ledger)
    with pytest.raises(BudgetError, match="used up") as raised:
        await account.open(ask("x" * 100))
    assert "key 'generation.budget_tokens'" in str(raised.value)


def test_the_journals_of_a_run_share_one_ledger(tmp_path: Path) -> None:
    for name in ("generate", "judge"):
        with Journal(tmp_path / name) as journal:
            journal.append_intent("0" * 32, {}, price=WORST.as_dict())
    (tmp_path / "notes.txt").write_text("no journal")
    ledger = Ledger.of_run(tmp_path, Budget(usd=1.0), PRICE)
    assert (ledger.spent_usd, ledger.spent_tokens) == (2 * WORST.usd, 2 * WORST.tokens)
    assert Ledger.of_run(tmp_path / "nowhere", Budget(usd=1.0), PRICE).spent_usd == 0


def test_the_bytes_of_a_prompt_bound_its_tokens() -> None:
    account = Account(Ledger(), PRICE)
    words = "Zürich \N{GRINNING FACE} " * 50
    assert account.worst(ask(words, 33)).input_tokens > len(words.encode())
    assert account.worst(ask(words, 33)).output_tokens == 33


def test_a_reply_costs_what_it_counts_and_else_what_was_held_back() -> None:
    account, request = Account(Ledger(), PRICE), ask("Why?")
    worst = account.worst(request)
    assert account.cost(request, reply(completion("a b c")), worst) == Cost.of(7, 3, PRICE)
    assert account.cost(request, reply(b'{"choices": [{"mess'), worst) == worst
    assert account.cost(request, reply(b"oops", 500), worst) == worst
    for code in (400, 401, 429, 503):
        assert account.cost(request, reply(status(code).body or b"", code), worst) == Cost.of(0, 0, PRICE)


def test_an_endpoint_that_counts_more_than_the_bound_gets_a_wider_one() -> None:
    account, request = Account(Ledger(), PRICE), ask("Why?", 5)
    narrow = account.worst(request)
    long = completion("word " * 12)
    for _ in range(2):  # seen twice is no reason to widen it twice
        account.cost(request, reply(long), narrow)
    assert account.worst(request).output_tokens == 12
    assert account.worst(request).input_tokens == narrow.input_tokens


async def test_what_is_in_flight_may_cost_more_once_a_reply_did(tmp_path: Path) -> None:
    ledger = Ledger(Budget(tokens=10**6))
    account = Account(ledger, PRICE)
    bills = [await account.open(ask("Why?", 5)) for _ in range(3)]
    held = ledger.spent_tokens
    bills[0].came_back(reply(completion("word " * 12)))
    assert ledger.spent_tokens == held + 3 * 7
    for bill in bills:
        bill.close()
    assert ledger.spent_tokens == 7 + 12 + 2 * account.worst(ask("Why?", 5)).tokens


def test_a_model_on_this_machine_costs_tokens_alone() -> None:
    account = Account.of(ResolvedModel("here", "gguf", price=PRICE), Ledger())
    worst = account.worst(ask("Why?", 5))
    assert worst.tokens > 5
    assert worst.picodollars == 0


# Asked through a client, of an endpoint that keeps its own bill.


class Biller(LoopbackEndpoint):
    """Bills every request that arrives by the usage it answers with, answered or not."""

    @property
    def billed_tokens(self) -> int:
        answers = (self._answer(request.messages) for request in self.requests)
        return sum(7 + len(answer.split()) for answer in answers)


def three_words(messages: Messages) -> str:
    return "one two three"


@asynccontextmanager
async def asking(server: LoopbackEndpoint, folder: Path, budget: Budget, **options: Any) -> AsyncIterator[Client]:
    engine = EndpointEngine(server.base_url, "m", None, timeout_s=20)
    try:
        ledger = Ledger.of_run(folder, budget, PRICE)
        with Journal(folder / "generate") as journal:
            yield Client(engine, journal, concurrency=8, account=Account(ledger, PRICE), **options)
    finally:
        await engine.aclose()


async def ask_until_used_up(client: Client, count: int) -> list[Answer]:
    answers: list[Answer] = []
    with pytest.raises(BudgetError):
        await client.ask_all((ask(f"row {number}") for number in range(count)), answers.append)
    return answers


async def test_the_bill_stays_within_the_budget_and_more_budget_goes_on(tmp_path: Path) -> None:
    async with Biller(three_words, delay_s=0.005) as server:
        async with asking(server, tmp_path, Budget(tokens=500)) as client:
            first = await ask_until_used_up(client, 200)
        assert 500 - Account(Ledger()).worst(ask("row 100")).tokens < server.billed_tokens <= 500
        assert len(first) == len(server.requests)
        async with asking(server, tmp_path, Budget(tokens=500)) as client:
            assert len(await ask_until_used_up(client, 200)) == len(first)  # all of them from the journal
        async with asking(server, tmp_path, Budget(tokens=5000)) as client:
            answers: list[Answer] = []
            await client.ask_all((ask(f"row {number}") for number in range(200)), answers.append)
        assert (len(answers), len(server.requests), server.billed_tokens) == (200, 200, 2000)


@pytest.mark.parametrize("fault", [cut(), raw(b"{}"), drop(), status(500)], ids=["cut", "no usage", "dropped", "status 500"])
async def test_replies_that_are_lost_are_billed_too(tmp_path: Path, short_waits: None, fault: Fault) -> None:
    def every_other(messages: Messages, attempt: int) -> Fault | None:
        return fault if attempt == 1 else None

    async with (
        Biller(three_words, fault=every_other) as server,
        asking(server, tmp_path, Budget(usd=0.005)) as client,
    ):
        await ask_until_used_up(client, 200)
        usd = sum(Cost.of(7, 3, PRICE).usd for _ in server.requests)
    assert 0 < usd <= 0.005


async def test_refusals_and_endpoints_that_cannot_be_reached_use_up_nothing(tmp_path: Path, short_waits: None) -> None:
    budget = Budget(tokens=180)  # one request at a time
    async with (
        Biller(three_words, fault=lambda messages, attempt: status(429) if attempt <= 9 else None) as server,
        asking(server, tmp_path, budget) as client,
    ):
        assert (await client.ask(ask("row 1"))).reply is not None
        port = int(server.base_url.rpartition(":")[2].partition("/")[0])
        assert len(server.requests) == 10
    for _ in range(3):
        async with asking(server, tmp_path, budget) as client:
            with pytest.raises(EndpointError, match="does not answer"):
                await client.ask(ask("row 2"))
    async with Biller(three_words, port=port) as server, asking(server, tmp_path, budget) as client:
        assert (await client.ask(ask("row 2"))).reply is not None


async def test_a_cancelled_request_counts_in_full(tmp_path: Path) -> None:
    arrived, budget = asyncio.Event(), Budget(tokens=180)  # one request at a time

    def never_answered(messages: Messages, attempt: int) -> Fault:
        arrived.set()
        return hang()

    async with LoopbackEndpoint(three_words, fault=never_answered) as server:
        async with asking(server, tmp_path, budget) as client:
            task = asyncio.create_task(client.ask(ask("row 1")))
            await arrived.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with pytest.raises(BudgetError):
                await client.ask(ask("row 2"))
        async with asking(server, tmp_path, budget) as client:
            with pytest.raises(BudgetError):
                await client.ask(ask("row 2"))
    assert len(server.requests) == 1


async def test_a_prompt_of_the_endpoints_own_is_known_before_many_are_asked_and_after_a_restart(tmp_path: Path) -> None:
    """Sixteen at once would be billed 16,000 tokens, of which nobody knew."""
    budget, bill = Budget(tokens=5000), VendorsBill(three_words, PRICE, own_prompt=1000)
    async with LoopbackEndpoint(three_words, fault=bill.fault, delay_s=0.05) as server:
        for _ in range(3):
            ledger = Ledger.of_run(tmp_path, budget, PRICE)
            engine = EndpointEngine(server.base_url, "m", None, timeout_s=20)
            with Journal(tmp_path / "generate") as journal:
                account = Account.of(ResolvedModel("m", "endpoint", price=PRICE), ledger)
                await ask_until_used_up(Client(engine, journal, concurrency=16, account=account), 200)
            await engine.aclose()
            compact_journal(tmp_path / "generate")
            assert (bill.requests, bill.tokens) == (4, 4 * (1000 + 12 + 5 + 5 + 13))
