"""A figure with its 95 % interval and the number of things it is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from potstill.metrics import proportion_ci


@dataclass(frozen=True, slots=True)
class Estimate:
    """value, its 95 % interval, and the number of rows, pairs or answers behind it."""

    value: float
    ci95: tuple[float, float]
    n: int

    def as_dict(self) -> dict[str, Any]:
        """As report.json has figures."""
        return {"value": self.value, "ci95": list(self.ci95), "n": self.n}


def share(count: int, n: int) -> Estimate:
    """A share of n things, with Wilson's interval; n is at least 1."""
    return Estimate(count / n, proportion_ci(count, n), n)
