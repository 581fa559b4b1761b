"""Where signals come from: a teacher that computes now, or a store of what one computed before; a loss cannot tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from potstill.signals.signal import Signal


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """The tokens of a batch, and where in them the student is to predict.

    Attributes:
        input_ids: (B, L) int64, padded on the right.
        positions: (N,) int64, indices into the B*L flattened positions, each one before its target: row by row, in order.
        keys: One key of `TextKeys` a row; empty where only a live teacher will be asked.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    keys: tuple[str, ...] = ()


class SignalSource(Protocol):
    """Gives signals of one teacher."""

    def signal(self, batch: TargetBatch, temperature: float) -> Signal:
        """What the teacher says at the batch's N positions, at a temperature, on the device of the batch's tensors.

        Raises:
            InputError: the source has no signal of a row, or none at this temperature.
        """
        ...
