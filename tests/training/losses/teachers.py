"""Random teachers and students for tests of losses: heads with padding, positions with unequal weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from potstill.signals.signal import Counts, Dense, Signal, TopK
from potstill.training.losses.fused import FusedLoss, fused_loss
from potstill.training.losses.mix import Mix
from training.losses import reference


@dataclass(frozen=True)
class Case:
    """N positions of a student with a head of `vocabulary` + 5 rows, and a teacher with one of `vocabulary` + 11 rows."""

    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    target_ids: torch.Tensor
    target_weights: torch.Tensor
    teacher_hidden: torch.Tensor
    teacher_weight: torch.Tensor
    teacher_bias: torch.Tensor
    vocabulary: int
    target_count: int

    def log_p(self, temperature: float) -> torch.Tensor:
        """The teacher's distribution, (N, V) float64."""
        logits = self.teacher_hidden.double() @ self.teacher_weight.double().T + self.teacher_bias.double()
        return reference.log_probabilities(logits, temperature, self.vocabulary)

    def dense(self, temperature: float) -> Dense:
        return Dense(self.teacher_hidden, self.teacher_weight, self.teacher_bias, temperature)

    def top_k(self, temperature: float, k: int = 9) -> TopK:
        """Between 1 and k tokens a position; unused places are anywhere among the used ones."""
        log_p = self.log_p(temperature)
        values, ids = log_p.topk(k)
        kept = torch.rand(ids.shape) < 0.7
        kept[:, 0] = True
        others = torch.ones_like(log_p).scatter(1, ids, 1.0 - kept.double()).bool()
        log_tail = log_p.masked_fill(~others, -torch.inf).logsumexp(-1)
        values = values.masked_fill(~kept, -torch.inf)
        order = torch.rand(ids.shape).argsort(-1)
        return TopK(*(each.gather(1, order) for each in (ids.masked_fill(~kept, 0), values.float())), log_tail.float())

    def top_k_and_draws(self, temperature: float, k: int = 9, draws: int = 6) -> TopK:
        """The same with tokens drawn from the others, but at the first position."""
        signal = self.top_k(temperature, k)
        others = torch.ones(len(signal), self.vocabulary).scatter_add(1, signal.ids, -(signal.logprobs > -torch.inf).float())
        drawn = _drawn(self.log_p(temperature).masked_fill(others < 0.5, -torch.inf), draws)
        at_all = torch.ones(len(signal))
        at_all[:1] = 0.0
        return replace(signal, drawn=Counts(drawn.ids, drawn.shares * at_all[:, None], drawn.log_p * at_all))

    def counts(self, draws: int, temperature: float = 1.0) -> Counts:
        """Draws from all tokens."""
        return _drawn(self.log_p(temperature), draws)

    def loss(self, signal: Signal | None, mix: Mix) -> FusedLoss:
        return fused_loss(self.hidden, self.weight, self.bias, self.target_ids, self.target_weights, signal, mix,
                          torch.tensor(self.target_count), self.vocabulary)

    @property
    def trained(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.hidden, self.weight, self.bias

    def logits(self) -> torch.Tensor:
        """The student's, (N, V) float64, with a graph."""
        return self.hidden.double() @ self.weight.double().T + self.bias.double()

    def distributions(self, signal: Signal, temperature: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each position log p and log q of the outcomes that the signal tells apart, float64."""
        log_p, log_q = self.log_p(temperature), reference.log_probabilities(self.logits(), temperature, self.vocabulary)
        if not isinstance(signal, TopK):
            return list(zip(log_p, log_q, strict=True))
        ids = [row[used].tolist() for row, used in zip(signal.ids, signal.logprobs > -torch.inf, strict=True)]
        return list(zip(reference.bucketed(log_p, ids), reference.bucketed(log_q, ids), strict=True))

    def reference_parts(self, signal: Signal, mix: Mix) -> torch.Tensor:
        """(P,) with a graph, from logits and distributions made whole, in float64."""
        weights, parts = self.target_weights.double(), []
        if "ce" in mix.weights:
            parts.append((weights * reference.cross_entropy(self.logits(), self.target_ids, self.vocabulary)).sum())
        pairs = self.distributions(signal, mix.temperature)
        for name in mix.soft_losses:
            values = [reference.divergence(name, log_p, log_q, mix.jsd_beta, mix.skew) for log_p, log_q in pairs]
            if name == "forward_kl" and isinstance(signal, TopK) and signal.drawn is not None:
                values = self._with_draws(values, signal, signal.drawn, mix.temperature)
            parts.append(mix.temperature**2 * (weights * torch.stack(values)).sum())
        return torch.stack(parts)


    def _with_draws(self, values: list[torch.Tensor], signal: TopK, drawn: Counts, temperature: float) -> list[torch.Tensor]:
        """Forward KL where what was drawn stands for the others one by one; where nothing was, the value given."""
        log_p, log_q = self.log_p(temperature), reference.log_probabilities(self.logits(), temperature, self.vocabulary)
        for i in range(len(signal)):
            ids = signal.ids[i][signal.logprobs[i] > -torch.inf]
            shares = torch.zeros(self.vocabulary).double().index_add(0, drawn.ids[i], drawn.shares[i].double())
            if shares.sum() > 0:
                shares[ids] += log_p[i, ids].exp()
                values[i] = (shares * (log_p[i] - log_q[i])).sum()
        return values


def _drawn(log_p: torch.Tensor, draws: int) -> Counts:
    """Draws from distributions (N, V), or from parts of them; as many places as draws, the first of each token used."""
    drawn = torch.multinomial(log_p.exp(), draws, replacement=True).sort(-1).values
    shares = (drawn.unsqueeze(-1) == drawn.unsqueeze(-2)).double().mean(-1) * log_p.exp().sum(-1, keepdim=True)
    again = torch.nn.functional.pad(drawn[:, 1:] == drawn[:, :-1], (1, 0))
    shares = shares.masked_fill(again, 0.0)
    return Counts(drawn.masked_fill(again, 0), shares.float(), (shares * log_p.gather(1, drawn)).sum(-1).float())


def random_case(positions: int = 23, vocabulary: int = 77, width: int = 12) -> Case:
    def states(rows: int) -> torch.Tensor:
        return torch.randn(rows, width)

    def heads(rows: int) -> torch.Tensor:
        return 1.7 / width**0.5 * torch.randn(rows, width)  # with the bias: logits with a standard deviation of 2

    weights = torch.rand(positions) * (torch.rand(positions) < 0.8)  # about a fifth are left out
    hidden, weight, bias = states(positions), heads(vocabulary + 5), torch.randn(vocabulary + 5)
    return Case(
        hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(),
        torch.randint(vocabulary, (positions,)), weights, states(positions), heads(vocabulary + 11),
        torch.randn(vocabulary + 11), vocabulary, target_count=40,
    )
