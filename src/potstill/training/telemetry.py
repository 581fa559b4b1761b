"""What the steps of a training say beside their loss, summed on the device and read only when it is logged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Reduce = Callable[[torch.Tensor], torch.Tensor]


class Telemetry:
    """Sums over target tokens; no step waits for the device.

    Args:
        names: The parts of the loss, in the order in which a loss tells them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._sums: torch.Tensor | None = None

    def add(self, parts: torch.Tensor, agreement: torch.Tensor, targets: int) -> None:
        """A batch's sums: (P,) parts in nats, how many first choices were the teacher's, and of how many tokens."""
        sums = torch.cat([parts.float(), agreement.float().reshape(1)])
        sums = torch.cat([sums, sums.new_full((1,), targets)])
        self._sums = sums if self._sums is None else self._sums + sums

    def take(self, reduce: Reduce) -> dict[str, float]:
        """Means a target token since the last time, by name; `reduce` sums a tensor over all processes."""
        if self._sums is None:
            return {}
        *sums, targets = reduce(self._sums).tolist()
        self._sums = None
        names = (*self._names, "agreement")
        return {name: value / max(targets, 1.0) for name, value in zip(names, sums, strict=True)}
