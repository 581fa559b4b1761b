"""Divergences between a teacher's and a student's distribution: value and gradient, one pure function each.

All take log-probabilities over the same M outcomes, `log_p` of the teacher and `log_q` of the student, both (..., M), and give

    value (...), in nats, and
    gradient (..., M), of that value with respect to the student's logits u of these outcomes, where q = softmax(u).

The outcomes are the whole vocabulary, or the K likeliest tokens and one outcome that stands for all the others. In both cases
u are logits already divided by the temperature T: with respect to the logits themselves the gradient is 1/T of this one, and
distillation then multiplies both by T squared, so that a soft loss keeps its weight beside cross-entropy whatever T is (Hinton
et al. 2015, arXiv:1503.02531).

An outcome may be impossible, with the log-probability -inf: nothing here becomes NaN by that. Where the teacher holds a token
that the student gives mass for impossible, a divergence that would be infinite counts that probability as `FLOOR`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

ValueAndGradient = tuple[torch.Tensor, torch.Tensor]
Divergence = Callable[[torch.Tensor, torch.Tensor], ValueAndGradient]

FLOOR = math.log(torch.finfo(torch.float32).tiny)
"""-87.3: the least log-probability of a teacher in reverse KL, where zero would make the divergence infinite."""

_NEVER = -1e30
"""Stands for -inf where it is multiplied by a probability of zero."""


def forward_kl(log_p: torch.Tensor, log_q: torch.Tensor) -> ValueAndGradient:
    """KL(p | q) = sum p (log p - log q); gradient q - p (Hinton et al. 2015, arXiv:1503.02531).

    It is linear in p but for p's own entropy: with p replaced by shares of tokens drawn from p, the gradient is right on
    average (Anshumann et al. 2025, "Sparse Logit Sampling", arXiv:2503.16870). No other divergence here is.
    """
    p = log_p.exp()
    value = log_p.clamp(min=_NEVER).sub_(log_q.clamp(min=_NEVER)).mul_(p).sum(-1)
    return value, log_q.exp().sub_(p)


def reverse_kl(log_p: torch.Tensor, log_q: torch.Tensor) -> ValueAndGradient:
    """KL(q | p) = sum q (log q - log p) = R; gradient q [log(q/p) - R] (Agarwal et al. 2024, GKD, arXiv:2306.13649)."""
    q = log_q.exp()
    return _through_softmax(q, log_q.clamp(min=_NEVER).sub_(log_p.clamp(min=FLOOR)))


def jsd(log_p: torch.Tensor, log_q: torch.Tensor, beta: float) -> ValueAndGradient:
    """b KL(p | m) + (1 - b) KL(q | m) with m = b p + (1 - b) q; gradient (1 - b) q [log(q/m) - KL(q | m)].

    Generalised Jensen-Shannon divergence (Agarwal et al. 2024, GKD, arXiv:2306.13649). beta 0 and 1 mean forward and reverse
    KL, which are its limits up to scale; the formula itself gives 0 there.
    """
    if beta == 0.0:
        return forward_kl(log_p, log_q)
    if beta == 1.0:
        return reverse_kl(log_p, log_q)
    log_m = _log_mixture(log_p, log_q, beta)
    of_teacher = log_p.clamp(min=_NEVER).sub_(log_m).mul_(log_p.exp()).sum(-1)
    of_student, gradient = _through_softmax(log_q.exp(), log_q.clamp(min=_NEVER).sub_(log_m))
    return beta * of_teacher + (1 - beta) * of_student, gradient.mul_(1 - beta)


def skew_forward_kl(log_p: torch.Tensor, log_q: torch.Tensor, skew: float) -> ValueAndGradient:
    """KL(p | m) with m = l p + (1 - l) q and l the skew; gradient -(1 - l) q [r - sum q r], r = p/m.

    Ko et al. 2024, DistiLLM, arXiv:2402.03898.
    """
    log_m = _log_mixture(log_p, log_q, skew)
    value = log_p.clamp(min=_NEVER).sub_(log_m).mul_(log_p.exp()).sum(-1)
    times_ratio = (log_p + log_q).sub_(log_m).exp_()  # q r, which stays below 1 / (1 - l) where r alone may overflow
    gradient = log_q.exp().mul_(times_ratio.sum(-1, keepdim=True)).sub_(times_ratio)
    return value, gradient.mul_(1 - skew)


def skew_reverse_kl(log_p: torch.Tensor, log_q: torch.Tensor, skew: float) -> ValueAndGradient:
    """KL(q | m) with m = (1 - l) p + l q and l the skew; gradient q [g - sum q g], g = log(q/m) + 1 - l q/m.

    Ko et al. 2024, DistiLLM, arXiv:2402.03898.
    """
    if skew == 0.0:
        return reverse_kl(log_p, log_q)
    q = log_q.exp()
    log_m = _log_mixture(log_p, log_q, 1 - skew)
    log_ratio = log_q.clamp(min=_NEVER).sub_(log_m)
    value = (q * log_ratio).sum(-1)
    _, gradient = _through_softmax(q, log_ratio + 1 - skew * log_ratio.exp())
    return value, gradient


def total_variation(log_p: torch.Tensor, log_q: torch.Tensor) -> ValueAndGradient:
    """Half the sum of |p - q|; gradient half q [s - sum q s] with s = sign(q - p).

    Wen et al. 2023, f-DISTILL, arXiv:2307.15190.
    """
    q = log_q.exp()
    difference = q - log_p.exp()
    _, gradient = _through_softmax(q, difference.sign())
    return difference.abs().sum(-1) / 2, gradient.div_(2)


def divergence(name: str, *, jsd_beta: float, skew: float) -> Divergence:
    """The divergence of that name, with its parameters in place; `KeyError` where there is none."""
    known: dict[str, Divergence] = {
        "forward_kl": forward_kl,
        "reverse_kl": reverse_kl,
        "jsd": partial(jsd, beta=jsd_beta),
        "skew_forward_kl": partial(skew_forward_kl, skew=skew),
        "skew_reverse_kl": partial(skew_reverse_kl, skew=skew),
        "total_variation": total_variation,
    }
    return known[name]


def _through_softmax(q: torch.Tensor, score: torch.Tensor) -> ValueAndGradient:
    """The mean score S = sum q score, (...), and q [score - S], (..., M), its gradient for scores that stand fast.

    The second takes the memory of the scores.
    """
    mean = (q * score).sum(-1)
    return mean, score.sub_(mean.unsqueeze(-1)).mul_(q)


def _log_mixture(log_a: torch.Tensor, log_b: torch.Tensor, share: float) -> torch.Tensor:
    """log(share a + (1 - share) b), (..., M), for 0 <= share < 1; `_NEVER` at least."""
    if share == 0.0:
        return log_b.clamp(min=_NEVER)
    return torch.logaddexp(log_a + math.log(share), log_b + math.log1p(-share)).clamp_(min=_NEVER)
