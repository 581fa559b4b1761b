"""The gradients of the head and of what goes into it, from those of a tile of logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_ROWS = 8192  # of the head's gradient at a time, where it is not made in its own place
# Of the sum over the vocabulary at a time, on a processor: 455 positions by 49,152 rows took 0.86 of the time of one product on
# two cores of an EPYC with AVX-512, in float32 and in bfloat16, and with AVX2 as long as it.
_TERMS = 4096


@dataclass(frozen=True, slots=True)
class HeadGradients:
    """Where they are added up, in float32, one tile of positions after the other; None for what has none.

    Attributes:
        weight: (V, H), the head's rows that are real tokens, in the type in which products are made: float32, or bfloat16,
            which rounds each entry of a product by at most 2^-9 of itself.
        of_hidden: (N, H), of the hidden states.
        of_weight: (V', H) with V' >= V, of the head's weight.
        of_bias: (V',), of its bias.
        scale: What a logit's gradient counts. It is applied to what is small.
    """

    weight: torch.Tensor
    of_hidden: torch.Tensor | None
    of_weight: torch.Tensor | None
    of_bias: torch.Tensor | None
    scale: torch.Tensor | float

    @classmethod
    def of(
        cls, weight: torch.Tensor, dtype: torch.dtype, of_hidden: torch.Tensor | None, of_weight: torch.Tensor | None,
        of_bias: torch.Tensor | None, scale: torch.Tensor | float,
    ) -> HeadGradients:
        """weight: (V, H), the head's; dtype: in which to multiply."""
        return cls(weight.to(dtype), of_hidden, of_weight, of_bias, scale)

    def add(self, gradient: torch.Tensor, states: torch.Tensor, start: int) -> None:
        """Those of the tile that begins at position `start`.

        Args:
            gradient: (C, V), of its logits, in float32 or the type in which products are made.
            states: (C, H) float32, the hidden states that it came from.
        """
        vocabulary = gradient.shape[1]
        if self.of_bias is not None:
            _put(self.of_bias[:vocabulary], gradient.sum(0, dtype=torch.float32) * self.scale, start)
        factor = gradient.to(self.weight.dtype)
        if self.of_hidden is not None:
            self._put_hidden(factor, start)
        if self.of_weight is None:
            return
        into, states = self.of_weight[:vocabulary], states * self.scale
        if factor.dtype == into.dtype:
            into.addmm_(factor.T, states, beta=1.0 if start else 0.0)
        else:
            rounded = states.to(factor.dtype)
            for first in range(0, vocabulary, _ROWS):  # what is still in the cache is quickly widened
                rows = slice(first, first + _ROWS)
                _put(into[rows], factor[:, rows].T @ rounded, start)


    def _put_hidden(self, factor: torch.Tensor, start: int) -> None:
        """Sums over the vocabulary; those of pieces are added up in float32."""
        assert self.of_hidden is not None
        terms = _TERMS if factor.is_cpu else max(len(self.weight), 1)
        into = self.of_hidden[start : start + len(factor)].zero_()
        for first in range(0, len(self.weight), terms):
            pieces = factor[:, first : first + terms], self.weight[first : first + terms]
            if factor.dtype == into.dtype:
                into.addmm_(*pieces)
            else:
                into.add_(pieces[0] @ pieces[1])
        into.mul_(self.scale)


def _put(into: torch.Tensor, value: torch.Tensor, start: int) -> None:
    """The first tile is written over what was there before."""
    if start:
        into.add_(value)
    else:
        into.copy_(value)
