"""The three forms in which a teacher's distributions reach a loss.

N is the number of target positions of a batch, in the order of the collator's `positions`: row by row, position by position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class TopK:
    """The largest probabilities of each distribution, and the mass of all others as one number.

    Attributes:
        ids: (N, K) int64, token ids; an unused place has id 0 and the log-probability -inf.
        logprobs: (N, K) float32, log softmax(z / T) of the whole distribution at the temperature T that was asked for, in nats.
        log_tail: (N,) float32, the log of the mass of all other tokens at that temperature; -inf where there is none.
        drawn: Tokens drawn from those others, which share their mass; None where none were.
    """

    ids: torch.Tensor
    logprobs: torch.Tensor
    log_tail: torch.Tensor
    drawn: Counts | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def tile(self, start: int, stop: int) -> TopK:
        """The same for the positions from `start` up to, not including, `stop`."""
        drawn = None if self.drawn is None else self.drawn.tile(start, stop)
        return TopK(self.ids[start:stop], self.logprobs[start:stop], self.log_tail[start:stop], drawn)

    def to(self, device: torch.device) -> TopK:
        """The same on a device."""
        drawn = None if self.drawn is None else self.drawn.to(device)
        return TopK(self.ids.to(device), self.logprobs.to(device), self.log_tail.to(device), drawn)


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens drawn from each distribution, or from a part of it, and how often each came up.

    Attributes:
        ids: (N, K) int64, token ids; an unused place has id 0 and the share 0.
        shares: (N, K) float32, draws of this token / all draws of the position, times the mass of what was drawn from: each row
            sums to that mass, which is 1 for a whole distribution.
        log_p: (N,) float32, the sum of share * log p(token), in nats; on average the sum of p log p of all that was drawn from.
    """

    ids: torch.Tensor
    shares: torch.Tensor
    log_p: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def tile(self, start: int, stop: int) -> Counts:
        """The same for the positions from `start` up to, not including, `stop`."""
        return Counts(self.ids[start:stop], self.shares[start:stop], self.log_p[start:stop])

    def to(self, device: torch.device) -> Counts:
        """The same on a device."""
        return Counts(self.ids.to(device), self.shares.to(device), self.log_p.to(device))


@dataclass(frozen=True, slots=True)
class Dense:
    """All that is needed to compute each whole distribution, a tile of positions at a time.

    Attributes:
        hidden: (N, Ht), the teacher's last hidden state, after its final norm.
        weight: (V', Ht), the teacher's head.
        bias: (V',), the head's bias, or None.
        temperature: T in softmax(z / T).
    """

    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    temperature: float

    def __len__(self) -> int:
        return len(self.hidden)

    def tile(self, start: int, stop: int) -> Dense:
        """The same for the positions from `start` up to, not including, `stop`."""
        return Dense(self.hidden[start:stop], self.weight, self.bias, self.temperature)


Signal = TopK | Counts | Dense
