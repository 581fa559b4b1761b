"""One model's place in the budget of a run: its price, and what its requests cost at most and in the end.

In: requests before they are sent, and replies as they came back. Out: a `Bill` for each request, which holds its most back in
the run's ledger until the outcome is known. Costs nothing but a count of bytes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from potstill.catalog.model import Price, ResolvedModel
from potstill.inference.budget import Ledger
from potstill.inference.protocol import RawReply, Request, TransportError
from potstill.inference.spending import Cost, used_tokens

# A token is at least one byte of its text. What a template puts around a message, and before all of them, is bounded by these.
MESSAGE_TOKENS = 16
TEMPLATE_TOKENS = 64
_OVERLOADED = (503, 529)


class Bill:
    """What one request costs: the most, which is held back from when it is made until it is closed, and then what it did.

    `at_most`, `came_back` and `broke` give the prices as the journal keeps them.
    """

    __slots__ = ("_account", "_actual", "_request", "_worst")

    def __init__(self, account: Account, request: Request, worst: Cost) -> None:
        self._account, self._request, self._worst = account, request, worst
        self._actual: Cost | None = None

    def grow(self) -> None:
        """Hold back more: a reply has shown that the endpoint counts more than was thought."""
        self._worst = self._account.hold_again(self._request, self._worst)

    def at_most(self) -> dict[str, Any]:
        return self._worst.as_dict()

    def came_back(self, raw: RawReply) -> dict[str, Any]:
        """By the reply's own count of tokens; where it has none, the most, or nothing for a plain refusal.

        A refusal (4xx, overloaded) comes before any work is done. Any other fault may come after it.
        """
        self._actual = self._account.cost(self._request, raw, self._worst)
        beyond = self._account.beyond
        return {**self._actual.as_dict(), **({"beyond": beyond} if any(beyond) else {})}

    def broke(self, error: TransportError) -> dict[str, Any]:
        """Nothing where the request never went out; else nobody knows, and it counts in full."""
        if error.sent:
            return {}
        self._actual = self._account.nothing
        return self._actual.as_dict()

    def close(self) -> None:
        """The request is over; without an outcome it counts in full."""
        self._account.settle(self, self._worst, self._actual)


class Account:
    """One model of a run: its price, and what its requests cost.

    Args:
        ledger: Of the run.
        price: None where it is not known.
        first_alone: Nothing is sent beside the first request before that was answered. An endpoint may count tokens that no
            text has, those of a prompt of its own, say: once known, they are held back for all requests that follow.

    Attributes:
        beyond: How many input and output tokens more than its texts can have the endpoint was seen to count.
    """

    def __init__(self, ledger: Ledger, price: Price | None = None, *, first_alone: bool = False) -> None:
        self._ledger, self._price = ledger, price
        self.beyond = ledger.beyond
        self._open: set[Bill] = set()
        self._knows_endpoint = not first_alone
        self._waiting_for_first = asyncio.Lock()
        self._first_is_over = asyncio.Event()
        self._first_is_over.set()

    @classmethod
    def of(cls, model: ResolvedModel, ledger: Ledger) -> Account:
        """A model on this machine costs no money; its tokens count nevertheless.

        The first request of a batch goes with the others: alone it could take a day.
        """
        is_asked = model.kind == "endpoint"
        price = model.price if is_asked else Price(0.0, 0.0)
        return cls(ledger, price, first_alone=is_asked and not model.batch and ledger.is_limited)

    async def open(self, request: Request) -> Bill:
        """Hold back the most that a request can cost; whoever opens a bill closes it.

        Raises:
            BudgetError: see `Ledger.reserve`.
        """
        if self._knows_endpoint:
            return await self._reserved(request)
        async with self._waiting_for_first:
            await self._first_is_over.wait()
            bill = await self._reserved(request)
            if not self._knows_endpoint:
                self._first_is_over.clear()
            return bill

    async def _reserved(self, request: Request) -> Bill:
        worst = self.worst(request)
        await self._ledger.reserve(worst)
        bill = Bill(self, request, worst)
        self._open.add(bill)
        return bill

    def reopen(self, request: Request) -> Bill:
        """The bill of a request that an earlier process has sent and that is still under way: the ledger holds its most
        already, because its intent has no outcome yet."""
        worst = self.worst(request)
        self._ledger.resume(worst)
        bill = Bill(self, request, worst)
        self._open.add(bill)
        return bill

    def worst(self, request: Request) -> Cost:
        """The most that a request can cost: its bytes and the template's bound its tokens, `max_tokens` those of the answer.

        An endpoint that was seen to count more than that (it adds a prompt of its own, say) gets so much more of a bound.
        """
        read, written = _bounds(request)
        return Cost.of(read + self.beyond[0], written + self.beyond[1], self._price)

    def cost(self, request: Request, raw: RawReply, worst: Cost) -> Cost:
        """See `Bill.came_back`."""
        used = used_tokens(raw.body)
        self._knows_endpoint = self._knows_endpoint or raw.status == 200
        if used is None:
            return self.nothing if 400 <= raw.status < 500 or raw.status in _OVERLOADED else worst
        self._learn_from(request, *used)
        return Cost.of(*used, self._price)

    def _learn_from(self, request: Request, read: int, written: int) -> None:
        """Bound all requests higher, those in flight too, where this one took more than its bounds."""
        bounds, known = _bounds(request), self.beyond
        self.beyond = (max(known[0], read - bounds[0]), max(known[1], written - bounds[1]))
        if self.beyond != known:
            for bill in self._open:
                bill.grow()

    @property
    def nothing(self) -> Cost:
        """What a request costs that was not sent, or that was refused before any work."""
        return Cost.of(0, 0, self._price)

    def hold_again(self, request: Request, held: Cost) -> Cost:
        """Hold back what a request can cost by now, in place of this."""
        worst = self.worst(request)
        self._ledger.replace(held, worst)
        return worst

    def settle(self, bill: Bill, worst: Cost, actual: Cost | None) -> None:
        """See `Ledger.settle`."""
        self._open.discard(bill)
        self._first_is_over.set()
        self._ledger.settle(worst, actual)


def _bounds(request: Request) -> tuple[int, int]:
    """Input and output tokens at most. A schema or a set of choices is read too, by some endpoints."""
    sampling = request.sampling
    extras = len((sampling.json_schema or "").encode()) + sum(len(choice.encode()) + 4 for choice in sampling.choices)
    read = TEMPLATE_TOKENS + sum(len(message.content.encode()) + MESSAGE_TOKENS for message in request.messages)
    return read + extras, sampling.max_tokens
