"""The budget of a run: what it may spend on models, holds back and has spent. Restarts and kills do not loosen it.

Before a request is sent, the most that it can cost is held back and written into the journal's intent; the outcome says what
it did cost, by the endpoint's own count. A `Ledger` knows a run's budget and what is left of it; all its models and journals
share one, each model by an account (`potstill.inference.account`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from potstill.catalog.model import Price
from potstill.errors import BudgetError
from potstill.inference.spending import PICODOLLARS, Cost, Spending, dollars, read_spending


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a run may cost, in dollars and in tokens; None is no limit."""

    usd: float | None = None
    tokens: int | None = None


class Ledger:
    """What a run may still spend. All clients of a process share it; the journals carry it from one process to the next."""

    def __init__(self, budget: Budget | None = None) -> None:
        self._budget = budget or Budget()
        self._tokens = self._picodollars = 0  # spent, and held back for requests in flight
        self._known_tokens = self._known_picodollars = 0
        self.beyond = (0, 0)  # as `Spending.beyond`, of any model of the run
        self._in_flight = 0
        self._waiting: list[asyncio.Future[None]] = []

    @classmethod
    def of_run(cls, journals: Path, budget: Budget, price: Price | None) -> Ledger:
        """The ledger of a run as its journals on disk have it, before a request goes through one of them.

        Args:
            journals: The folder that holds a folder a journal. Without a budget they are not read.
            price: For what was asked for before a price was known.

        Raises:
            CorruptFileError: a journal is damaged.
        """
        ledger = cls(budget)
        if budget != Budget() and journals.is_dir():
            for folder in journals.iterdir():
                ledger.take(read_spending(folder), price)
        return ledger

    def take(self, spending: Spending, price: Price | None = None) -> None:
        """Count what a journal holds already; `price` as in `of_run`."""
        tokens, picodollars = spending.total.at(price)
        self._tokens, self._picodollars = self._tokens + tokens, self._picodollars + picodollars
        self.beyond = (max(self.beyond[0], spending.beyond[0]), max(self.beyond[1], spending.beyond[1]))
        tokens, picodollars = spending.known.at(price)
        self._known_tokens, self._known_picodollars = self._known_tokens + tokens, self._known_picodollars + picodollars

    async def reserve(self, worst: Cost) -> None:
        """Hold back what a request costs at most; waits while requests in flight may turn out cheaper than was held back.

        Raises:
            BudgetError: it could pass a limit, and nothing is in flight that could make room.
        """
        while not self._fits(worst):
            if not self._in_flight:
                raise self._used_up(worst)
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self._tokens += worst.tokens
        self._picodollars += worst.picodollars or 0
        self._in_flight += 1

    def resume(self, worst: Cost) -> None:
        """A request that is held back for since an earlier process, as the journals say, is in flight again."""
        if not self.is_limited:  # then they were not read
            self._tokens += worst.tokens
            self._picodollars += worst.picodollars or 0
        self._in_flight += 1

    @property
    def is_limited(self) -> bool:
        """Whether there is a budget to keep."""
        return self._budget != Budget()

    def replace(self, held: Cost, worst: Cost) -> None:
        """A request in flight may cost other than was held back for it."""
        self._tokens += worst.tokens - held.tokens
        self._picodollars += (worst.picodollars or 0) - (held.picodollars or 0)

    def settle(self, worst: Cost, actual: Cost | None) -> None:
        """A request that was held back for is over, and cost this; None where nobody knows, so that it counts in full."""
        self._in_flight -= 1
        if actual is not None:
            self._tokens += actual.tokens - worst.tokens
            self._picodollars += (actual.picodollars or 0) - (worst.picodollars or 0)
            self._known_tokens += actual.tokens
            self._known_picodollars += actual.picodollars or 0
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    @property
    def spent_usd(self) -> float:
        """Dollars, with what is held back for requests in flight and for those without an outcome."""
        return self._picodollars / PICODOLLARS

    @property
    def spent_tokens(self) -> int:
        """Tokens, counted as `spent_usd` counts dollars."""
        return self._tokens

    def _fits(self, worst: Cost) -> bool:
        return self._fits_tokens(worst) and (
            self._budget.usd is None
            or self._picodollars + (worst.picodollars or 0) <= round(self._budget.usd * PICODOLLARS)
        )

    def _fits_tokens(self, worst: Cost) -> bool:
        return self._budget.tokens is None or self._tokens + worst.tokens <= self._budget.tokens

    def _used_up(self, worst: Cost) -> BudgetError:
        if self._fits_tokens(worst):
            key, limit, spent, asked = "budget_usd", dollars(self._budget.usd or 0), dollars(self.spent_usd), dollars(worst.usd)
            unknown = self._picodollars - self._known_picodollars
            held = dollars(unknown / PICODOLLARS)
        else:
            key, limit, spent, asked = "budget_tokens", f"{self._budget.tokens} tokens", f"{self._tokens}", f"{worst.tokens}"
            unknown = self._tokens - self._known_tokens
            held = f"{unknown}"
        told = f" ({held} of it held back for requests whose outcome is not known)" if unknown else ""
        return BudgetError(
            "the budget is used up: the next request could pass it",
            where=f"key 'generation.{key}' of the job file",
            found=f"{spent} spent{told}; the next request may cost {asked}; the limit is {limit}",
            hint=f"raise generation.{key} and run again: it goes on, and nothing that was received is paid for twice",
        )
