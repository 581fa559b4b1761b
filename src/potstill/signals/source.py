"""Where signals come from: a teacher that computes now, or a store of what one computed before; a loss cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Observation:
    """What happened inside a teacher for one batch of B texts, L tokens long, with N target positions.

    Attributes:
        last: (N, Ht) float32, the last hidden states at the target positions, after the final norm; None where only layers were
            kept.
        hidden: By layer, counted from 0, its output at the target positions: (N, Ht) float32.
        attention: By layer, its attention probabilities: (B, heads, L, L), queries before keys.
    """

    last: torch.Tensor | None
    hidden: Mapping[int, torch.Tensor]
    attention: Mapping[int, torch.Tensor]


class LayerSource(Protocol):
    """Gives what happened inside one teacher."""

    @property
    def width(self) -> int:
        """Ht, the width of its hidden states."""
        ...

    @property
    def layer_count(self) -> int:
        """How many decoder layers the teacher has."""
        ...

    def observe(
        self, batch: TargetBatch, *, hidden_layers: Sequence[int] = (), attention_layers: Sequence[int] = ()
    ) -> Observation:
        """What is asked for of these layers, counted from 0, on the device of the batch's tensors.

        Raises:
            InputError: the source has nothing of a row.
        """
        ...

    def signal_in(self, observed: Observation, temperature: float) -> Signal | None:
        """The teacher's distributions, where they lie in what was observed."""
        ...
