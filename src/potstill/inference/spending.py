"""What requests cost, as the journal's records tell it: the price of an intent is the most, that of an outcome what it was.

What has no outcome counts in full: the process died, or the connection broke, and the vendor may have billed it. So the sum of
a journal is never less than the bill.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from potstill.catalog.model import Price
from potstill.inference.segments import scan_journal

PICODOLLARS = 10**12  # a dollar; whole numbers add up without rounding, however many there are


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens read and written, and their price; `picodollars` is None where the price is not known."""

    input_tokens: int = 0
    output_tokens: int = 0
    picodollars: int | None = 0

    @classmethod
    def of(cls, input_tokens: int, output_tokens: int, price: Price | None) -> Cost:
        if price is None:
            return cls(input_tokens, output_tokens, None)
        # Dollars a million tokens are millionths of a dollar a token.
        worth = input_tokens * round(price.input * 10**6) + output_tokens * round(price.output * 10**6)
        return cls(input_tokens, output_tokens, worth)

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def usd(self) -> float:
        return (self.picodollars or 0) / PICODOLLARS

    def as_dict(self) -> dict[str, Any]:
        """As a record of the journal holds it."""
        value: dict[str, Any] = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        return value if self.picodollars is None else {**value, "usd": self.usd}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cost:
        """What `as_dict` wrote; what is missing is nothing, a missing price is an unknown one."""
        usd = data.get("usd")
        return cls(
            data.get("input_tokens", 0), data.get("output_tokens", 0), None if usd is None else round(usd * PICODOLLARS)
        )


@dataclass(slots=True)
class Sum:
    """Costs added up; those of unknown price apart, in tokens."""

    tokens: int = 0
    picodollars: int = 0
    unpriced_input_tokens: int = 0
    unpriced_output_tokens: int = 0

    def add(self, cost: Cost, times: int = 1) -> None:
        self.tokens += times * cost.tokens
        if cost.picodollars is None:
            self.unpriced_input_tokens += times * cost.input_tokens
            self.unpriced_output_tokens += times * cost.output_tokens
        else:
            self.picodollars += times * cost.picodollars

    def at(self, price: Price | None) -> tuple[int, int]:
        """Tokens and picodollars; what was asked for before its price was known is worth what it would cost today."""
        unpriced = Cost.of(self.unpriced_input_tokens, self.unpriced_output_tokens, price)
        return self.tokens, self.picodollars + (unpriced.picodollars or 0)


class Spending:
    """The sum of one journal. Memory holds one entry a request whose outcome is not known.

    total: all of it. known: the part that outcomes account for; the rest is what was held back for requests without one.
    beyond: how many input and output tokens more than a text can have an endpoint was seen to count at most.
    """

    def __init__(self) -> None:
        self.total, self.known = Sum(), Sum()
        self.beyond = (0, 0)
        self._open: dict[str, Cost] = {}

    def note(self, note: Mapping[str, Any]) -> None:
        """Take a record of the journal, in the order in which they were written; one without a price is about no paid model.

        A second intent of a key leaves the first without an outcome. A record of kind "spent" stands for others that were
        taken out of the journal: it adds its price, to `known` too where it says so.
        """
        kind, price = note["kind"], note.get("price")
        cost = Cost.from_dict(price) if price else None
        if price and "beyond" in price:
            self.beyond = (max(self.beyond[0], price["beyond"][0]), max(self.beyond[1], price["beyond"][1]))
        if kind == "spent" and cost is not None:
            self.total.add(cost)
            if note.get("known"):
                self.known.add(cost)
        elif kind == "intent" and cost is not None:
            self.total.add(cost)
            self._open[note["key"]] = cost
        elif kind in ("outcome", "failure"):
            worst = self._open.pop(note["key"], None)
            if worst is not None and cost is not None:
                self.total.add(worst, -1)
                self.total.add(cost)
                self.known.add(cost)


def read_spending(folder: Path) -> Spending:
    """The sum of a journal that nobody has open; nothing where there is none.

    Raises:
        CorruptFileError: a record is broken though more follows.
    """
    spending = Spending()
    for _, record in scan_journal(folder):
        spending.note(record.note)
    return spending


def used_tokens(body: bytes) -> tuple[int, int] | None:
    """Input and output tokens as a reply counts them itself, in OpenAI's words or Anthropic's; None where it does not.

    Some endpoints leave hidden reasoning out of `completion_tokens`, but not out of the total.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    usage = data.get("usage") if isinstance(data, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    counts = {name: value for name, value in usage.items() if isinstance(value, int) and not isinstance(value, bool)}
    if "prompt_tokens" in counts and ("completion_tokens" in counts or "total_tokens" in counts):  # embeddings write nothing
        read = counts["prompt_tokens"]
        return read, max(counts.get("completion_tokens", 0), counts.get("total_tokens", 0) - read)
    if "input_tokens" in counts and "output_tokens" in counts:
        cached = counts.get("cache_creation_input_tokens", 0) + counts.get("cache_read_input_tokens", 0)
        return counts["input_tokens"] + cached, counts["output_tokens"]
    return None


def dollars(usd: float) -> str:
    """A sum of money as a person reads it: $12.30, and below a dollar as many digits as it needs ($0.0042)."""
    digits = 2 if usd >= 1 or usd <= 0 else 1 - math.floor(math.log10(usd))
    return f"${usd:,.{max(2, digits)}f}"
