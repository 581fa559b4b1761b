"""Every loss once more, plainly: whole distributions in float64, formulas written out, gradients by autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def log_probabilities(logits: torch.Tensor, temperature: float, vocabulary: int) -> torch.Tensor:
    """(N, V) float64 of logits (N, at least V): padding is no outcome."""
    tempered = logits.double()[:, :vocabulary] / temperature
    return tempered - tempered.exp().sum(-1, keepdim=True).log()


def bucketed(log_probability: torch.Tensor, ids: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """For each position the log-probabilities of its listed tokens and, if there are others, that of all others."""
    rows = []
    for row, kept in zip(log_probability, ids, strict=True):
        others = torch.ones(len(row), dtype=torch.bool)
        others[list(kept)] = False
        parts = [row[list(kept)]]
        if others.any():
            parts.append(row[others].exp().sum().log().unsqueeze(0))
        rows.append(torch.cat(parts))
    return rows


def kl(log_a: torch.Tensor, log_b: torch.Tensor) -> torch.Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def divergence(name: str, log_p: torch.Tensor, log_q: torch.Tensor, jsd_beta: float, skew: float) -> torch.Tensor:
    p, q = log_p.exp(), log_q.exp()
    if name == "forward_kl":
        return kl(log_p, log_q)
    if name == "reverse_kl":
        return kl(log_q, log_p)
    if name == "jsd":
        log_m = (jsd_beta * p + (1 - jsd_beta) * q).log()
        return jsd_beta * kl(log_p, log_m) + (1 - jsd_beta) * kl(log_q, log_m)
    if name == "skew_forward_kl":
        return kl(log_p, (skew * p + (1 - skew) * q).log())
    if name == "skew_reverse_kl":
        return kl(log_q, ((1 - skew) * p + skew * q).log())
    assert name == "total_variation"
    return (p - q).abs().sum(-1) / 2


def cross_entropy(logits: torch.Tensor, target_ids: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """(N,) in nats, at temperature 1."""
    log_q = log_probabilities(logits, 1.0, vocabulary)
    return torch.stack([-row[target] for row, target in zip(log_q, target_ids.tolist(), strict=True)])


def relative_error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """Of the whole tensor, by its norm."""
    return float((ours.double() - reference).norm() / reference.norm())
