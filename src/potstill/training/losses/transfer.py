"""Losses on what happens inside the models: hidden states and attention of layers that belong together.

Layers are counted from 0 in the order of the decoder, and a layer's hidden state is what it hands to the next one. Both losses
are sums over target positions, divided by the number of target positions of the whole optimizer step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

LayerPairs = tuple[tuple[int, int], ...]
"""(layer of the student, layer of the teacher)."""


def layer_map(student_layers: int, teacher_layers: int, kept: Sequence[int] | None = None) -> LayerPairs:
    """Which hidden states to compare.

    Args:
        student_layers: The number of the student's layers.
        teacher_layers: The number of the teacher's.
        kept: Where the student is the teacher with layers left out, which ones it kept, rising. Its layer i is then compared
            with the teacher's last layer before the next kept one, so that each layer meets the input it was trained on, and
            its last with the teacher's last.

    Returns:
        One pair for each layer of the shallower model, evenly spaced, the last with the last (TinyBERT's uniform map, Jiao et
        al. 2020, arXiv:1909.10351).

    Raises:
        ValueError: `kept` does not name one layer of the teacher for each of the student's.
    """
    if kept is not None:
        _check_kept(student_layers, teacher_layers, kept)
        return tuple(enumerate([*(layer - 1 for layer in kept[1:]), teacher_layers - 1]))
    pairs = min(student_layers, teacher_layers)
    return tuple((i * student_layers // pairs - 1, i * teacher_layers // pairs - 1) for i in range(1, pairs + 1))


def attention_map(student_layers: int, teacher_layers: int, kept: Sequence[int] | None = None) -> LayerPairs:
    """Which layers' attention to compare: a kept layer with itself; else as `layer_map`, with its arguments and errors."""
    if kept is not None:
        _check_kept(student_layers, teacher_layers, kept)
        return tuple(enumerate(kept))
    return layer_map(student_layers, teacher_layers)


def _check_kept(student_layers: int, teacher_layers: int, kept: Sequence[int]) -> None:
    if len(kept) != student_layers or list(kept) != sorted(set(kept)) or not all(0 <= i < teacher_layers for i in kept):
        raise ValueError(f"{student_layers} rising layers of the teacher's {teacher_layers} are needed, not {list(kept)}")


class Projectors(torch.nn.Module):  # type: ignore[misc]
    """A learned linear map from the student's width to the teacher's, one for each pair of layers.

    They are trained with the student and left behind with the teacher. Between equal widths they begin as the identity.
    """

    def __init__(self, pairs: int, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.maps = torch.nn.ModuleList(torch.nn.Linear(student_width, teacher_width, bias=False) for _ in range(pairs))
        if student_width == teacher_width:
            for linear in self.maps:
                torch.nn.init.eye_(linear.weight)

    def forward(self, states: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The student's states of each pair, (N, Hs), as the teacher's width, (N, Ht), at least in float32."""
        return [linear(_wide(state)) for linear, state in zip(self.maps, states, strict=True)]


def hidden_loss(
    projected: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], target_weights: torch.Tensor | None,
    target_count: torch.Tensor | int,
) -> torch.Tensor:
    """Normalised mean squared error between hidden states (TinyBERT, Jiao et al. 2020, arXiv:1909.10351).

    Of a position: |s - t|^2 / |t|^2, averaged over the pairs of layers. The plain error would be ruled by the few layers and
    positions where states are large; and dividing by a mean over the batch would make the gradient depend on how a step is
    cut into batches.

    Args:
        projected: The student's states through `Projectors`, (N, Ht) for each pair. N may be 0.
        teacher: The teacher's states, (N, Ht) for each pair.
        target_weights: (N,), what each position counts; None counts 1 each.
        target_count: The number of target positions of the whole optimizer step; 0 counts as 1.

    Returns:
        A scalar with a graph.
    """
    of_pairs = []
    for state, aim in zip(projected, teacher, strict=True):
        aim = _wide(aim.detach())
        norm = aim.square().sum(-1).clamp(min=torch.finfo(aim.dtype).tiny)
        of_pairs.append((_wide(state) - aim).square().sum(-1) / norm)
    return _over_the_step(torch.stack(of_pairs).mean(0), target_weights, target_count)


def attention_loss(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], positions: torch.Tensor,
    target_weights: torch.Tensor | None, target_count: torch.Tensor | int,
) -> torch.Tensor:
    """KL between attention distributions, the teacher's on the left (MiniLM, Wang et al. 2020, arXiv:2002.10957).

    Averaged over heads and pairs of layers. Where the numbers of heads differ, each model's heads are averaged first.

    Args:
        student: Attention probabilities of each pair's layer, (B, heads, L, L).
        teacher: The same of the teacher.
        positions: (N,) indices into the B*L flattened positions: the queries that count. All others may be padding. N may be 0.
        target_weights: (N,), what each position counts; None counts 1 each.
        target_count: The number of target positions of the whole optimizer step; 0 counts as 1.

    Returns:
        A scalar with a graph.
    """
    of_pairs = []
    for ours, theirs in zip(student, teacher, strict=True):
        q, p = _of_queries(ours, positions), _of_queries(theirs.detach(), positions)
        if q.shape[1] != p.shape[1]:
            q, p = q.mean(1, keepdim=True), p.mean(1, keepdim=True)
        tiny = torch.finfo(q.dtype).tiny
        of_pairs.append((p * (p.clamp(min=tiny).log() - q.clamp(min=tiny).log())).sum(-1).mean(-1))
    return _over_the_step(torch.stack(of_pairs).mean(0), target_weights, target_count)


def _of_queries(attention: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(N, heads, L) of (B, heads, L, L)."""
    return _wide(attention.transpose(1, 2).flatten(0, 1).index_select(0, positions))


def _over_the_step(of_positions: torch.Tensor, weights: torch.Tensor | None, target_count: torch.Tensor | int) -> torch.Tensor:
    total = (of_positions if weights is None else of_positions * weights).sum()
    return total / (target_count.clamp(min=1) if isinstance(target_count, torch.Tensor) else max(target_count, 1))


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
