"""From log-probabilities that a server told, one place after the other, to a top-k signal.

What was not told is in the tail: one minus the sum of the entries. That is exact at the temperature at which they were told,
and at no other, because a tail of unknown tokens cannot be tempered; so these signals are of temperature 1 alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from potstill.signals.signal import TopK

# The least mass a tail keeps: what the sum of 20 numbers in float32 may be wrong by. A tail of nothing would make a student's
# probability of any token elsewhere infinitely wrong under the reverse divergence.
TAIL_FLOOR = 1e-6
# Numbers that sum to more than this are not of one distribution; bfloat16 logits make sums as large as 1.004.
_MOST_MASS = 1.01

Entries = Mapping[int, float]  # log-probability by token id


def drawn(token_id: int) -> Entries:
    """A place of which nothing was told but the token that was written: one draw from the distribution, as in sampled signals
    (Anshumann et al. 2025, arXiv:2503.16870). Right in expectation where the teacher drew its answer at temperature 1."""
    return {token_id: 0.0}


def top_signal(places: Sequence[Entries]) -> TopK | None:
    """One distribution a place, at temperature 1, the likeliest token first; None where a sum is far above 1."""
    normalised = [_normalised(entries) for entries in places]
    if any(mass is None for mass in normalised):
        return None
    width = max((len(entries) for entries in places), default=0)
    ids = torch.zeros((len(places), width), dtype=torch.int64)
    logprobs = torch.full((len(places), width), -math.inf)
    log_tail = torch.empty(len(places))
    for place, of_place in enumerate(normalised):
        assert of_place is not None
        kept, tail = of_place
        ids[place, : len(kept)] = torch.tensor([token_id for token_id, _ in kept], dtype=torch.int64)
        logprobs[place, : len(kept)] = torch.tensor([logprob for _, logprob in kept])
        log_tail[place] = tail
    return TopK(ids, logprobs, log_tail)


def _normalised(entries: Entries) -> tuple[list[tuple[int, float]], float] | None:
    """The entries in order and the log of the tail, which sum to 1."""
    mass = math.fsum(math.exp(logprob) for logprob in entries.values())
    if mass > _MOST_MASS:
        return None
    most = 1.0 - TAIL_FLOOR
    down = math.log(mass / most) if mass > most else 0.0
    kept = sorted(((token_id, logprob - down) for token_id, logprob in entries.items()), key=lambda entry: -entry[1])
    return kept, math.log(max(1.0 - mass, TAIL_FLOOR))
