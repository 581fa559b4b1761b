"""A head whose products round to bfloat16 without harm to the softmax."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from potstill.training.losses.workspace import Workspace

_COLUMNS = 16  # of a matrix: products are made in blocks of them


@dataclass(frozen=True, slots=True)
class RoundedHead:
    """A processor rounds a product of bfloat16 matrices to bfloat16, and a logit of 20 to a multiple of 1/8.

    That costs 4 to 23 % of a gradient's accuracy. But logits may be moved, all of a position by the same number, and near zero
    bfloat16 is fine: so from each logit that of the text's own token is subtracted within the product, by a column more. Then
    those near the largest are off by their distance to it / 256 at most. What is left is the rounding of hidden states and
    weights, as in all other layers: of a gradient of SmolLM2's head 2 % instead of 5, at half the time of a product in float32.

    Attributes:
        factor: (V, K) bfloat16: the weight's H columns, one of ones, the bias in two parts, and zeros.
        weight: (V, H), the first of them.
    """

    factor: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None, vocabulary: int, workspace: Workspace) -> RoundedHead:
        """Of the first `vocabulary` rows of a head, which are real tokens; its factor lies in the workspace."""
        width = weight.shape[1]
        filled = -(-(width + 3) // _COLUMNS) * _COLUMNS
        factor = workspace.take("head in bfloat16", (vocabulary, filled), torch.bfloat16, weight.device)
        factor[:, :width] = weight[:vocabulary]
        factor[:, width] = 1.0
        factor[:, width + 1 :] = 0.0
        if bias is not None:
            factor[:, width + 1] = bias[:vocabulary]
            factor[:, width + 2] = bias[:vocabulary].float() - factor[:, width + 1].float()
        return cls(factor, factor[:, :width])

    def logits(self, hidden: torch.Tensor, target_ids: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
        """(C, V) bfloat16, each less about that of its position's target, in the first rows of the buffer.

        Args:
            hidden: (C, H) float32.
            target_ids: (up to C,), of the first positions; behind them nothing is subtracted.
            buffer: (at least C, V) bfloat16.
        """
        known, width = len(target_ids), hidden.shape[1]
        inputs = hidden.new_zeros(len(hidden), self.factor.shape[1], dtype=torch.bfloat16)
        inputs[:, :width] = hidden
        inputs[:, width + 1 : width + 3] = 1.0
        of_targets = inputs[:known].float() * self.factor[target_ids].float()
        inputs[:known, width] = -of_targets.sum(-1)
        out = buffer[: len(hidden)]
        torch.mm(inputs, self.factor.T, out=out)
        return out
