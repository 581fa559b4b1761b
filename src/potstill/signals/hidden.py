"""Hidden states of a teacher's layers, kept in half precision beside one scale a vector.

A vector's numbers are divided by the largest of them before they are rounded: some models have single features of many
thousands, which half precision cannot hold, and bfloat16 would keep 8 bits of each number where this keeps 11. A number is off
by at most 2^-11 of itself or 2^-25 of its vector's largest. On disk a position takes 2 bytes a number and 4 a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from potstill.signals.packing import Array, Body, Cursor


@dataclass(frozen=True, slots=True)
class HiddenEncoding:
    """Of which layers, counted from 0, the outputs are kept; `width` is the teacher's."""

    layers: tuple[int, ...]
    width: int
    name: ClassVar[str] = "hidden"

    @property
    def settings(self) -> dict[str, Any]:
        """What the store's header says of it."""
        return {"name": self.name, "layers": list(self.layers), "width": self.width}

    @property
    def position_bytes(self) -> int:
        """What a position takes on disk."""
        return len(self.layers) * (2 * self.width + 4)

    def select(self, hidden: Mapping[int, torch.Tensor]) -> tuple[Array, ...]:
        """What is kept of N positions, hidden states (N, width) by layer: (N, layers, width), and their scales (N, layers)."""
        states = torch.stack([hidden[layer].float() for layer in self.layers], dim=1)
        scales = states.abs().amax(-1).clamp_min(torch.finfo(torch.float32).tiny)
        return (states / scales[..., None]).half().cpu().numpy(), scales.cpu().numpy()

    def pack(self, states: Array, scales: Array) -> bytes:
        """The bytes of one text's positions; arrays as `select` gives them."""
        return scales.astype("<f4").tobytes() + states.astype("<f2").tobytes()

    def decode(self, bodies: Sequence[Body]) -> dict[int, torch.Tensor]:
        """By layer the hidden states of several texts, one after the other: (N, width) float32."""
        parts = [self._states(body) for body in bodies]
        return {layer: torch.from_numpy(np.concatenate([part[:, place] for part in parts]))
                for place, layer in enumerate(self.layers)}

    def _states(self, body: Body) -> Array:
        cursor, vectors = Cursor(body.content), body.positions * len(self.layers)
        scales = cursor.take("<f4", vectors)
        states: Array = cursor.take("<f2", vectors * self.width).reshape(vectors, self.width).astype(np.float32)
        states *= scales[:, None]
        return states.reshape(body.positions, len(self.layers), self.width)
