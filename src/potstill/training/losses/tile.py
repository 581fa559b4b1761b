"""The losses of a tile of positions, and their gradient, which takes the place of the logits.

This is the one place where the terms of a `Mix` are put together. Values and gradients are summed over positions, each times
its weight, and not yet divided: the divisor belongs to the whole optimizer step. A soft loss counts T squared. Its gradient
with respect to a logit z = T u is that with respect to u, times T squared, over T: so it counts T.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from potstill.signals.signal import Counts, TopK
from potstill.training.losses.divergences import ValueAndGradient, divergence, forward_kl
from potstill.training.losses.mix import Mix


@dataclass(frozen=True, slots=True)
class Outcomes:
    """A sparse teacher: K tokens, and all others as one outcome, of which D may have been drawn.

    Attributes:
        ids: (N, K) int64, token ids, 0 at unused places.
        log_p: (N, K + 1) float32, log-probabilities, the last that of all other tokens; -inf at unused places.
        first: (N, 1) int64, the teacher's likeliest token.
        drawn: Tokens drawn from the others, whose shares sum to their probability; None where none were.
    """

    ids: torch.Tensor
    log_p: torch.Tensor
    first: torch.Tensor
    drawn: Counts | None = None

    @classmethod
    def of(cls, signal: TopK | Counts, vocabulary: int) -> Outcomes:
        """Without tokens at or above `vocabulary`, which are padding, and with the rest made to sum to 1.

        Counts are draws where no token is known by itself, and all of the probability is that of others.
        """
        if isinstance(signal, Counts):
            drawn = _without_padding(signal, vocabulary, 1.0)
            known = _nothing_known(drawn.shares)
            return cls(known.ids, known.log_p, drawn.ids.gather(-1, drawn.shares.argmax(-1, keepdim=True)), drawn)
        padding = signal.ids >= vocabulary
        ids = signal.ids.masked_fill(padding, 0)
        log_p = torch.cat([signal.logprobs.float().masked_fill(padding, -torch.inf), signal.log_tail.float().unsqueeze(-1)], -1)
        log_p.sub_(log_p.logsumexp(-1, keepdim=True))
        first = ids.gather(-1, log_p[:, :-1].argmax(-1, keepdim=True))
        others = log_p[:, -1:].exp()
        return cls(ids, log_p, first, None if signal.drawn is None else _without_padding(signal.drawn, vocabulary, others))

    def tile(self, start: int, stop: int) -> Outcomes:
        """The same for a range of positions."""
        drawn = None if self.drawn is None else self.drawn.tile(start, stop)
        return Outcomes(self.ids[start:stop], self.log_p[start:stop], self.first[start:stop], drawn)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over positions: of each token loss, (P,) in the order of `Mix.token_losses`, and of agreeing positions, a scalar."""

    parts: torch.Tensor
    agreement: torch.Tensor

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.parts + other.parts, self.agreement + other.agreement)

    @classmethod
    def none(cls, mix: Mix, device: torch.device) -> Sums:
        """Those of no position."""
        return cls(torch.zeros(len(mix.token_losses), device=device), torch.zeros((), dtype=torch.int64, device=device))


@dataclass(frozen=True, slots=True)
class Tile:
    """What C positions are compared with.

    Attributes:
        target_ids: (C,) int64, the tokens of the text.
        weights: (C,) float32, what each position counts, or None where each counts 1.
        teacher: A sparse teacher; or the teacher's logits, (C, V) float32; or None, where there is its text alone.
    """

    target_ids: torch.Tensor
    weights: torch.Tensor | None
    teacher: Outcomes | torch.Tensor | None

    def rows(self, start: int, stop: int) -> Tile:
        """A range of them."""
        weights = None if self.weights is None else self.weights[start:stop]
        if isinstance(self.teacher, Outcomes):
            return Tile(self.target_ids[start:stop], weights, self.teacher.tile(start, stop))
        return Tile(self.target_ids[start:stop], weights, None if self.teacher is None else self.teacher[start:stop])


def overwrite_by_gradient(logits: torch.Tensor, tile: Tile, mix: Mix, rows_at_once: int) -> Sums:
    """Put the gradient of the weighted sum of all losses in the place of the student's logits, and give the losses.

    Args:
        logits: (C, V), of real tokens alone, in float32, or in bfloat16 and then computed with in float32; overwritten.
        tile: What these positions are compared with.
        mix: The losses.
        rows_at_once: Intermediate results are made for so many positions at a time.
    """
    sums = Sums.none(mix, logits.device)
    for start, stop in spans(len(logits), rows_at_once):
        part = logits[start:stop]
        wide = part.float()
        sums = sums + _of_rows(wide, tile.rows(start, stop), mix)
        if wide.dtype != part.dtype:
            part.copy_(wide)
    return sums


def spans(length: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive pieces of at most `size`."""
    for start in range(0, length, size):
        yield start, min(start + size, length)


def _of_rows(logits: torch.Tensor, tile: Tile, mix: Mix) -> Sums:
    top = logits.amax(-1, keepdim=True)
    agreement = (logits.gather(-1, _first_choice(tile)) >= top).sum()
    if isinstance(tile.teacher, torch.Tensor):
        values = _fill_dense(logits, tile.teacher, tile, mix)
    else:
        values = _fill_sparse(logits, top, _nothing_known(logits) if tile.teacher is None else tile.teacher, tile, mix)
    if tile.weights is not None:
        values = values * tile.weights
    return Sums(values.sum(-1), agreement)


def _first_choice(tile: Tile) -> torch.Tensor:
    """(C, 1), the teacher's likeliest token; without a signal, the token of the text."""
    if isinstance(tile.teacher, torch.Tensor):
        return tile.teacher.argmax(-1, keepdim=True)
    if tile.teacher is not None:
        return tile.teacher.first
    return tile.target_ids.unsqueeze(-1)


def _fill_dense(logits: torch.Tensor, teacher: torch.Tensor, tile: Tile, mix: Mix) -> torch.Tensor:
    """Overwrite logits (C, V) by the gradient where the teacher's are known too; gives the losses (P, C)."""
    t = mix.temperature
    log_p, log_q = torch.log_softmax(teacher / t, -1), torch.log_softmax(logits / t, -1)
    values = []
    if "ce" in mix.weights:
        value = _cross_entropy(logits, log_q if t == 1.0 else torch.log_softmax(logits, -1), tile.target_ids, mix.weights["ce"])
        values.append(value)
    else:
        logits.zero_()
    for name in mix.soft_losses:
        value, gradient = divergence(name, jsd_beta=mix.jsd_beta, skew=mix.skew)(log_p, log_q)
        values.append(value * t**2)
        logits.add_(gradient, alpha=mix.weights[name] * t)
    if tile.weights is not None:
        logits.mul_(tile.weights.unsqueeze(-1))
    return torch.stack(values)


def _cross_entropy(out: torch.Tensor, log_q: torch.Tensor, target_ids: torch.Tensor, weight: float) -> torch.Tensor:
    """-log q[target], (C,); its gradient q - 1[target], times the weight, is written to `out`, (C, V)."""
    target = target_ids.unsqueeze(-1)
    torch.exp(log_q, out=out).scatter_add_(-1, target, torch.full_like(target, -1, dtype=out.dtype)).mul_(weight)
    return -log_q.gather(-1, target).squeeze(-1)


def _fill_sparse(logits: torch.Tensor, top: torch.Tensor, teacher: Outcomes, tile: Tile, mix: Mix) -> torch.Tensor:
    """Overwrite logits (C, V), the largest of which are `top` (C, 1), by the gradient where the teacher is sparse or absent;
    gives the losses (P, C).

    Of the outcomes "token k of K" and "any other" the gradient g is (K + 1) numbers. Any other token v has q_v / q_tail of the
    last one, and q_v is its odds against the likeliest token, exp((z_v - z_max) / T), over their sum: so one row of odds is
    all there is to compute, to scale, and to correct at K + 1 places, and at those of the others that were drawn.
    """
    t, ce = mix.temperature if mix.soft_losses else 1.0, mix.weights.get("ce", 0.0)
    target = tile.target_ids.unsqueeze(-1)
    values = []
    at_one = None
    if "ce" in mix.weights and t != 1.0:
        at_one = torch.empty_like(logits)
        values.append(_cross_entropy(at_one, torch.log_softmax(logits, -1), tile.target_ids, ce))
    odds = logits.sub_(top)
    if t != 1.0:
        odds.div_(t)
    used = teacher.log_p[:, :-1] > -torch.inf
    log_odds = odds.gather(-1, teacher.ids).masked_fill_(~used, -torch.inf)
    log_odds_of_target = odds.gather(-1, target)
    log_odds_of_drawn = None if teacher.drawn is None else odds.gather(-1, teacher.drawn.ids)
    odds.exp_()
    # Exact, and where an unused place names token 0 nothing is taken from it: x - x = 0 and x - 0 = x.
    odds.scatter_add_(-1, teacher.ids, -odds.gather(-1, teacher.ids).mul_(used))
    tail = odds.sum(-1, keepdim=True)
    total = tail + log_odds.exp().sum(-1, keepdim=True)
    log_q = torch.cat([log_odds, tail.log()], -1).sub_(total.log())

    gradient = torch.zeros_like(log_q)
    if "ce" in mix.weights and at_one is None:
        values.append((total.log() - log_odds_of_target).squeeze(-1))
        gradient.add_(log_q.exp(), alpha=ce)
    at_drawn = None
    for name in mix.soft_losses:
        if name == "forward_kl" and teacher.drawn is not None and log_odds_of_drawn is not None:
            value, of_outcomes = _forward_kl_with_draws(teacher, teacher.drawn, log_q, log_odds_of_drawn - total.log())
            at_drawn = teacher.drawn.shares * (-mix.weights[name] * t)
        else:
            value, of_outcomes = divergence(name, jsd_beta=mix.jsd_beta, skew=mix.skew)(teacher.log_p, log_q)
        values.append(value * t**2)
        gradient.add_(of_outcomes, alpha=mix.weights[name] * t)
    at_target = torch.full_like(total, -ce)
    if tile.weights is not None:
        weights = tile.weights.unsqueeze(-1)
        gradient, at_target = gradient * weights, at_target * weights
        at_drawn = None if at_drawn is None else at_drawn * weights
    tiny = torch.finfo(odds.dtype).tiny
    odds.mul_(gradient[:, -1:] / tail.clamp(min=tiny)).scatter_add_(-1, teacher.ids, gradient[:, :-1])
    if at_drawn is not None and teacher.drawn is not None:
        odds.scatter_add_(-1, teacher.drawn.ids, at_drawn)
    if at_one is not None:
        odds.add_(at_one if tile.weights is None else at_one.mul_(weights))
    elif ce:
        odds.scatter_add_(-1, target, at_target)
    return torch.stack(values)


def _forward_kl_with_draws(
    teacher: Outcomes, drawn: Counts, log_q: torch.Tensor, log_q_of_drawn: torch.Tensor
) -> ValueAndGradient:
    """KL(p | q) where draws stand for the others one by one: right on average, in value and gradient.

    Of the outcomes (C, K + 1) the last is then no outcome of the teacher's, and its gradient is q's. To be added at the tokens
    that were drawn: minus their shares. Where nothing was drawn the others stay one outcome.
    """
    is_drawn = drawn.shares.sum(-1, keepdim=True) > 0
    log_p = torch.cat([teacher.log_p[:, :-1], teacher.log_p[:, -1:].masked_fill(is_drawn, -torch.inf)], -1)
    value, of_outcomes = forward_kl(log_p, log_q)
    return value.add_(drawn.log_p).sub_((drawn.shares * log_q_of_drawn).sum(-1)), of_outcomes


def _nothing_known(rows: torch.Tensor) -> Outcomes:
    """No token apart, and all of the mass on the others."""
    none = torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)
    return Outcomes(none, torch.zeros(len(rows), 1, dtype=torch.float32, device=rows.device), none)


def _without_padding(drawn: Counts, vocabulary: int, mass: torch.Tensor | float) -> Counts:
    """Without tokens at or above `vocabulary`, and with shares that sum to the mass, (N, 1) or a number."""
    padding = drawn.ids >= vocabulary
    shares = drawn.shares.float().masked_fill(padding, 0.0)
    scale = mass / shares.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return Counts(drawn.ids.masked_fill(padding, 0), shares * scale, drawn.log_p.float() * scale.squeeze(-1))
