"""Sampled signals: tokens drawn from the teacher's distribution, and how often each came up.

Unbiased for forward Kullback-Leibler divergence and cross-entropy, at the temperature they were drawn at and only there
(Anshumann et al. 2025, "Sparse Logit Sampling", arXiv:2503.16870). A text draws the same each time: its key is the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from potstill.errors import InputError
from potstill.signals.draws import as_counts, mean_log_p, pack_draws, unpack_draws
from potstill.signals.packing import Array, Body, Cursor
from potstill.signals.selecting import draw, in_blocks
from potstill.signals.signal import Counts


@dataclass(frozen=True, slots=True)
class CountsEncoding:
    """How sampled signals are kept.

    Attributes:
        vocabulary: The number of real tokens; rows of a head beyond are padding, and never drawn.
        temperature: Of the distribution drawn from.
        draws: How many tokens are drawn at each position.
    """

    vocabulary: int
    temperature: float = 1.0
    draws: int = 200
    name: ClassVar[str] = "counts"

    @property
    def settings(self) -> dict[str, Any]:
        """What the store's header says of it."""
        return {"name": self.name, "vocabulary": self.vocabulary, "temperature": self.temperature, "draws": self.draws}

    def select(self, logits: torch.Tensor, starts: torch.Tensor) -> tuple[Array, ...]:
        """Token ids drawn from C distributions (C, draws), ascending, and the means of their log-probabilities (C,).

        Args:
            logits: (C, V) float32, -inf at padding.
            starts: (C,) float64 uniform in [0, 1), which decide what is drawn.
        """
        blocks = in_blocks(logits if self.temperature == 1.0 else logits / self.temperature)
        weights = torch.softmax(blocks.flatten(1), dim=1)
        sums = weights.view(blocks.shape).sum(-1, dtype=torch.float64)
        ids = draw(weights.view(blocks.shape), sums, starts, torch.full((len(weights),), self.draws, device=weights.device))
        return ids.cpu().numpy(), mean_log_p(weights, ids, sums.sum(1)).cpu().numpy()

    def pack(self, ids: Array, log_p: Array) -> bytes:
        """The bytes of one text's positions; arrays as `select` gives them."""
        return pack_draws(ids, log_p, self.vocabulary)

    def decode(self, bodies: Sequence[Body], temperature: float) -> Counts:
        """The signals of several texts, one after the other.

        Raises:
            InputError: they were drawn at another temperature.
        """
        if temperature != self.temperature:
            raise InputError(
                "the signals were not drawn at this temperature", where="training.temperature", found=f"{temperature:g}",
                expected=f"{self.temperature:g}", hint="capture them anew at this one",
            )
        if not bodies:
            return Counts(torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1), torch.zeros(0))
        parts = zip(*(unpack_draws(Cursor(body.content), body.positions, self.vocabulary) for body in bodies), strict=True)
        log_p, used, ids, counts = map(np.concatenate, parts)
        return as_counts(log_p, used, ids, counts, np.ones(len(used)))


def starts_of(key: str, count: int) -> Array:
    """`count` uniform numbers in [0, 1), float64, that follow from a text's key: the same on every machine and device."""
    raw: Array = np.random.Philox(key=int(key, 16)).random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53
