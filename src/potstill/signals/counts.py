"""Sampled signals: tokens drawn from the teacher's distribution, and how often each came up.

Unbiased for forward Kullback-Leibler divergence and cross-entropy, at the temperature they were drawn at and only there
(Anshumann et al. 2025, "Sparse Logit Sampling", arXiv:2503.16870). A text draws the same each time: its key is the seed.

On disk the ids of a text are one sorted sequence, and the counts, most of them 1, one of small numbers (coding.py): some 13.7
bits a distinct token with 49,152 in the vocabulary, where an id of 16 bits and a byte for its count take 24. Counts are exact;
nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from potstill.errors import InputError
from potstill.signals.coding import pack_small, pack_sorted, unpack_small, unpack_sorted
from potstill.signals.packing import Array, Body, Cursor, as_table
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
        """Token ids drawn from C distributions (C, draws), ascending.

        Args:
            logits: (C, V) float32, -inf at padding.
            starts: (C,) float64 uniform in [0, 1), which decide what is drawn.
        """
        blocks = in_blocks(logits if self.temperature == 1.0 else logits / self.temperature)
        probabilities = torch.softmax(blocks.flatten(1), dim=1).view(blocks.shape)
        return (draw(probabilities, starts, self.draws).cpu().numpy(),)

    def pack(self, ids: Array) -> bytes:
        """The bytes of one text's positions; ids as `select` gives them."""
        is_first = np.ones(ids.shape, bool)
        is_first[:, 1:] = ids[:, 1:] != ids[:, :-1]
        counts = np.diff(np.flatnonzero(is_first), append=ids.size)
        numbers = ids + np.arange(len(ids))[:, None] * self.vocabulary
        return pack_sorted(numbers[is_first], numbers.shape[0] * self.vocabulary) + pack_small(counts)

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
            return Counts(torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1))
        used, counts, ids = zip(*map(self._parts, bodies), strict=True)
        used_of = np.concatenate(used)
        shares = as_table(counts, used_of, 0, np.float32)
        shares /= self.draws
        return Counts(torch.from_numpy(as_table(ids, used_of, 0, np.int64)), torch.from_numpy(shares))

    def _parts(self, body: Body) -> tuple[Array, Array, Array]:
        """Of each position how many distinct tokens it has; of those the counts, and the ids."""
        cursor = Cursor(body.content)
        rows, ids = np.divmod(unpack_sorted(cursor, body.positions * self.vocabulary), self.vocabulary)
        return np.bincount(rows, minlength=body.positions), unpack_small(cursor, len(ids)), ids


def starts_of(key: str, count: int) -> Array:
    """`count` uniform numbers in [0, 1), float64, that follow from a text's key: the same on every machine and device."""
    raw: Array = np.random.Philox(key=int(key, 16)).random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53
