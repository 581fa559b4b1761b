"""Cross-entropy on the tokens a student should have written."""

from __future__ import annotations

import torch
from torch.nn import functional


def cross_entropy(
    logits: torch.Tensor, target_ids: torch.Tensor, target_count: torch.Tensor | int, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """-sum_i w_i log softmax(logits_i)[target_i] / target_count, in nats, computed in float32.

    One optimizer step may be made of several batches, also on several devices. Dividing each batch's sum by the number of
    target tokens of the whole step, and adding up, weighs every token alike; a mean of batch means would not.

    Args:
        logits: (N, V), one row a target token; any floating type.
        target_ids: (N,), the token that should follow at that row. N may be 0.
        target_count: The number of target tokens of the whole optimizer step; 0 counts as 1.
        weights: (N,), what each target counts; None counts 1 each.

    Returns:
        A scalar. With N = 0 it is zero and still has a graph, so that `backward` works on a batch without targets.
    """
    if weights is None:
        total = functional.cross_entropy(logits.float(), target_ids, reduction="sum")
    else:
        total = (functional.cross_entropy(logits.float(), target_ids, reduction="none") * weights).sum()
    return total / (target_count.clamp(min=1) if isinstance(target_count, torch.Tensor) else max(target_count, 1))
