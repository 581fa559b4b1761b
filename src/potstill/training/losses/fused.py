"""The head, the softmax and every loss on tokens, in one walk over small tiles of positions.

The logits of all positions, N x V numbers, never exist. A tile's logits are computed, its losses and their gradient with
respect to the logits follow at once, in the same memory, and what is kept are the gradients of the hidden states, N x H, and of
the head, V x H. `backward` only scales them. This holds for cross-entropy and distillation alike (Hsu et al. 2024, Liger
Kernel, arXiv:2410.10989, and Wijmans et al. 2024, Cut Cross-Entropy, arXiv:2411.09009, show the idea). Under autocast the
products are in bfloat16, as those of all other layers, but no logit is rounded where that would show: on a processor logits are
centred (rounded_head.py), elsewhere in float32, written to memory that is there already, which autocast leaves alone. Softmax
and losses are always in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from potstill.signals.products import Head, multiplied_by_the_faster_library
from potstill.signals.signal import Counts, Dense, Signal
from potstill.training.losses.head_gradients import HeadGradients
from potstill.training.losses.mix import OF_COUNTS, Mix
from potstill.training.losses.rounded_head import RoundedHead
from potstill.training.losses.tile import Outcomes, Sums, Tile, overwrite_by_gradient, spans
from potstill.training.losses.workspace import Workspace

# Bytes of a tile of logits, and of the part of it for which intermediate results are made; with a dense teacher these are
# several as large as the part, and on a processor should stay in its cache. The gradient of the head is walked through once a
# tile, which is why tiles are larger.
_TILE_BYTES = {"cpu": 96 * 2**20, "other": 256 * 2**20}
_UNIT = 32  # positions: a tile has a whole number of them
_PART_BYTES = {"cpu": 3 * 2**19, "other": 256 * 2**20}
_DENSE_PART_BYTES = {"cpu": 2**18, "other": 64 * 2**20}


@dataclass(frozen=True, slots=True)
class FusedLoss:
    """What a batch gives.

    Attributes:
        loss: A scalar with a graph: the weighted sum of the losses over all positions / target_count, in nats.
        parts: (P,), each loss of `Mix.token_losses` summed over positions, by position weights but not by the mix's; in nats,
            soft losses times T squared. Undivided, so that parts of batches can be added up.
        agreement: Scalar int64, positions where the student's likeliest token is the teacher's; without a signal, the target.
    """

    loss: torch.Tensor
    parts: torch.Tensor
    agreement: torch.Tensor


def fused_loss(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, target_ids: torch.Tensor,
    target_weights: torch.Tensor | None, signal: Signal | None, mix: Mix, target_count: torch.Tensor | int, vocabulary: int,
    workspace: Workspace | None = None, keeps_gradient: bool = False,
) -> FusedLoss:
    """The token losses of a batch from the student's last hidden states.

    Args:
        hidden: (N, H), at target positions; any floating type. N may be 0: the loss is then zero, and has a graph.
        weight: (V, H), the student's head.
        bias: (V,), its bias, or None.
        target_ids: (N,) int64, the token that follows each position.
        target_weights: (N,), what each position counts; None counts 1 each.
        signal: What the teacher says about these positions, at `mix.temperature`; None where the mix has no soft loss.
        mix: The losses.
        target_count: The number of target positions of the whole optimizer step; 0 counts as 1.
        vocabulary: The number of real tokens. Rows of either head from there on are padding: they count as minus infinity.
        workspace: Memory of earlier calls to use again.
        keeps_gradient: The weight's gradient may lie there too: that of the call before is no longer needed.

    Raises:
        ValueError: the mix has no token loss, or a soft one without a signal for these positions and at its temperature.
    """
    comparison = _comparison(target_ids, target_weights, signal, mix, vocabulary)
    half = torch.is_autocast_enabled(hidden.device.type)
    wanted = tuple(torch.is_grad_enabled() and tensor is not None and tensor.requires_grad for tensor in (hidden, weight, bias))
    with multiplied_by_the_faster_library():
        loss, parts, agreement = _Fused.apply(
            hidden, weight, bias, comparison, mix, target_count, vocabulary, wanted, half, workspace or Workspace(),
            keeps_gradient,
        )
    return FusedLoss(loss, parts, agreement)


def dense_loss(
    logits: torch.Tensor, target_ids: torch.Tensor, target_weights: torch.Tensor | None, signal: Signal | None, mix: Mix,
    target_count: torch.Tensor | int, vocabulary: int,
) -> FusedLoss:
    """The same from logits, (N, V), for models that scale or cap what comes out of their head.

    Arguments, result and errors are those of `fused_loss`; the logits, and a gradient as large, are in memory.
    """
    comparison = _comparison(target_ids, target_weights, signal, mix, vocabulary)
    with multiplied_by_the_faster_library():
        loss, parts, agreement = _OnLogits.apply(logits, comparison, mix, target_count, vocabulary)
    return FusedLoss(loss, parts, agreement)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What N positions are compared with. teacher: a dense one is its hidden states, (N, Ht) and filled up, and its head."""

    target_ids: torch.Tensor
    weights: torch.Tensor | None
    teacher: Outcomes | tuple[torch.Tensor, Head] | None

    def buffer_beside(self, logits: torch.Tensor, rows: int) -> torch.Tensor | None:
        """Room for a dense teacher's logits beside so many of the student's."""
        is_dense = isinstance(self.teacher, tuple)
        return logits.new_empty(rows, logits.shape[1], dtype=torch.float32) if is_dense else None

    def tile(self, start: int, stop: int, filled: int, buffer: torch.Tensor | None) -> Tile:
        """A range of positions; a dense teacher's logits are made in the buffer, up to position `filled`."""
        teacher: Outcomes | torch.Tensor | None = None
        if isinstance(self.teacher, Outcomes):
            teacher = self.teacher.tile(start, stop)
        elif self.teacher is not None and buffer is not None:
            hidden, head = self.teacher
            teacher = head.logits(hidden[start:filled], buffer)[: stop - start]
        return Tile(self.target_ids[start:stop], None if self.weights is None else self.weights[start:stop], teacher)


def _comparison(
    target_ids: torch.Tensor, weights: torch.Tensor | None, signal: Signal | None, mix: Mix, vocabulary: int
) -> _Comparison:
    if not mix.token_losses:
        raise ValueError(f"no loss on tokens among {list(mix.weights)}")
    teacher: Outcomes | tuple[torch.Tensor, Head] | None = None
    if signal is None:
        if mix.soft_losses:
            raise ValueError(f"{', '.join(mix.soft_losses)} need a signal")
    elif len(signal) != len(target_ids):
        raise ValueError(f"a signal for {len(signal)} positions, and {len(target_ids)} targets")
    elif isinstance(signal, Dense):
        if signal.temperature != mix.temperature:
            raise ValueError(f"a signal at temperature {signal.temperature:g}, and losses at {mix.temperature:g}")
        teacher = _filled_up(signal.hidden.detach()), Head.of(signal.weight.detach(), signal.bias, vocabulary)
    else:
        if isinstance(signal, Counts) and (unserved := [name for name in mix.token_losses if name not in OF_COUNTS]):
            raise ValueError(f"counts are unbiased for forward_kl alone, not for {', '.join(unserved)}")
        teacher = Outcomes.of(signal, vocabulary)
    return _Comparison(target_ids, None if weights is None else weights.float(), teacher)


class _Fused(torch.autograd.Function):  # type: ignore[misc]
    """hidden, weight, bias -> (loss, parts, agreement); the gradients of the first three are made on the way."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, comparison: _Comparison, mix: Mix,
        target_count: torch.Tensor | int, vocabulary: int, wanted: tuple[bool, bool, bool], half: bool,
        workspace: Workspace, keeps_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        states = _filled_up(hidden.float())
        of_hidden, of_weight, of_bias = (
            torch.empty_like(tensor, dtype=torch.float32) if tensor is not None and wants else None
            for tensor, wants in zip((states, None if keeps_gradient else weight, bias), wanted, strict=True)
        )
        if keeps_gradient and wanted[1]:
            of_weight = workspace.take("gradient of the head", weight.shape, torch.float32, weight.device)
        for gradient in (of_weight, of_bias):
            if gradient is not None:
                gradient[vocabulary if len(hidden) else 0 :].zero_()  # the rest is written by the first tile
        is_rounded = half and not hidden.is_cuda
        head = RoundedHead.of(weight, bias, vocabulary, workspace) if is_rounded else Head.of(weight.float(), bias, vocabulary)
        count = _at_least_one(target_count)
        back = HeadGradients.of(
            head.weight, torch.bfloat16 if half else torch.float32, of_hidden, of_weight, of_bias, scale=1 / count
        )
        dtype = torch.bfloat16 if is_rounded else torch.float32
        rows, rows_of_part = _rows(vocabulary, hidden, comparison, dtype)
        buffer = workspace.take("logits", (min(rows, len(states)), vocabulary), dtype, hidden.device)
        beside = comparison.buffer_beside(buffer, len(buffer))
        sums = Sums.none(mix, hidden.device)
        for start, end in spans(len(hidden), rows):
            stop = min(start + rows, len(states))
            if isinstance(head, RoundedHead):
                logits = head.logits(states[start:stop], comparison.target_ids[start:end], buffer)
            else:
                logits = head.logits(states[start:stop], buffer)
            tile = comparison.tile(start, end, stop, beside)
            sums = sums + overwrite_by_gradient(logits[: end - start], tile, mix, rows_of_part)
            logits[end - start :].zero_()
            back.add(logits, states[start:stop], start)
        of_hidden = None if of_hidden is None else of_hidden[: len(hidden)]
        return _finish(ctx, mix, sums, count, (of_hidden, of_weight, of_bias), (hidden, weight, bias))

    @staticmethod
    def backward(ctx: Any, of_loss: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        return (*_scaled(ctx, of_loss), *[None] * 8)


class _OnLogits(torch.autograd.Function):  # type: ignore[misc]
    """logits -> (loss, parts, agreement)."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, comparison: _Comparison, mix: Mix, target_count: torch.Tensor | int, vocabulary: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows, rows_of_part = _rows(vocabulary, logits, comparison, torch.float32)
        gradient = torch.zeros_like(logits, dtype=torch.float32)
        of_tokens = gradient[:, :vocabulary].copy_(logits[:, :vocabulary])
        beside = comparison.buffer_beside(of_tokens, rows)
        sums = Sums.none(mix, logits.device)
        for start, stop in spans(len(logits), rows):
            tile = comparison.tile(start, stop, stop, beside)
            sums = sums + overwrite_by_gradient(of_tokens[start:stop], tile, mix, rows_of_part)
        count = _at_least_one(target_count)
        return _finish(ctx, mix, sums, count, (gradient.div_(count),), (logits,))

    @staticmethod
    def backward(ctx: Any, of_loss: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        return (*_scaled(ctx, of_loss), None, None, None, None)


def _at_least_one(count: torch.Tensor | int) -> torch.Tensor | int:
    return count.clamp(min=1) if isinstance(count, torch.Tensor) else max(count, 1)


def _finish(
    ctx: Any, mix: Mix, sums: Sums, count: torch.Tensor | int, gradients: tuple[torch.Tensor | None, ...],
    inputs: tuple[torch.Tensor | None, ...],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keep for `backward` what it needs, and make the loss."""
    ctx.gradients = gradients
    ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs]
    ctx.mark_non_differentiable(sums.parts, sums.agreement)
    total = sums.parts.new_zeros(())
    for i, name in enumerate(mix.token_losses):
        total = total + mix.weights[name] * sums.parts[i]
    return total / count, sums.parts, sums.agreement


def _scaled(ctx: Any, of_loss: torch.Tensor) -> list[torch.Tensor | None]:
    """The gradients kept, times d/d loss. In place, so that nothing of their size is made: they serve once."""
    gradients, ctx.gradients = ctx.gradients, None
    if gradients is None:
        raise RuntimeError("the gradients of this loss were used before: it can be differentiated once")
    if of_loss.device.type != "cpu" or of_loss.item() != 1.0:  # a GPU would have to be waited for
        gradients = [None if gradient is None else gradient.mul_(of_loss) for gradient in gradients]
    return [None if gradient is None else gradient.to(dtype) for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)]


def _rows(vocabulary: int, positions: torch.Tensor, comparison: _Comparison, dtype: torch.dtype) -> tuple[int, int]:
    """How many of the positions make a tile of logits of this type, all tiles being about equal, and how many a part of one.

    A dense teacher's logits, beside the tile, and parts are in float32.
    """
    kind = "cpu" if positions.device.type == "cpu" else "other"
    is_dense = isinstance(comparison.teacher, tuple)
    part_bytes = _DENSE_PART_BYTES if is_dense else _PART_BYTES
    most = max(1, _TILE_BYTES[kind] // ((4 if is_dense else dtype.itemsize) * vocabulary))
    most -= most % _UNIT if most > _UNIT else 0
    tiles = max(1, -(-len(positions) // most))
    return max(1, min(most, _filled(-(-len(positions) // tiles)))), max(1, part_bytes[kind] // (4 * vocabulary))


def _filled(rows: int) -> int:
    """Up to whole units: a library for products prepares itself for every new number of rows, which takes as long as a third of
    the products, and batches have ever other ones."""
    return -(-rows // _UNIT) * _UNIT


def _filled_up(states: torch.Tensor) -> torch.Tensor:
    """(N, H) with zeros behind it, up to whole units; they give nothing and are given nothing."""
    return torch.nn.functional.pad(states, (0, 0, 0, _filled(len(states)) - len(states)))
