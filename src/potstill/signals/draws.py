"""Tokens that were drawn, as bytes and back: which ones, how often each, and what the teacher thought of them.

The ids of a text are one sorted sequence, and the counts, most of them 1, one of small numbers (coding.py): some 13.7 bits a
distinct token with 49,152 in the vocabulary and 200 draws, where an id of 16 bits and a byte for its count take 24. Both are
exact. The mean of the draws' log-probabilities, half precision, turns a cross-entropy with them into a divergence: it has the
same draws, so that for a student who is its teacher the two take each other off.
"""

from __future__ import annotations

import numpy as np
import torch

from potstill.signals.coding import pack_small, pack_sorted, unpack_rows, unpack_small
from potstill.signals.packing import Array, Cursor, as_table, places
from potstill.signals.signal import Counts


def mean_log_p(weights: torch.Tensor, ids: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """The mean (C,) of the logs of the drawn tokens' probabilities, weights (C, V) / total (C,); 0 where none was drawn.

    Args:
        ids: (C, D) as `selecting.draw` gives them.
    """
    is_drawn = ids >= 0
    logs = weights.gather(1, ids.clamp(min=0)).double().log_().sub_(total.log()[:, None]).masked_fill_(~is_drawn, 0.0)
    return logs.sum(1) / is_drawn.sum(1).clamp(min=1)


def pack_draws(ids: Array, log_p: Array, vocabulary: int) -> bytes:
    """R rows of drawn tokens (R, D), each ascending with -1 behind, and the means of their logs (R,); the last of a body."""
    is_first = ids >= 0
    is_first[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    used = (ids >= 0).sum(1)
    numbers = (ids + np.arange(len(ids), dtype=np.int64)[:, None] * vocabulary)[is_first]
    starts = np.cumsum(used) - used
    at = (np.arange(ids.shape[1]) + starts[:, None])[is_first]  # the place of each first one among all that were drawn
    counts = np.diff(at, append=used.sum())
    return log_p.astype("<f2").tobytes() + pack_sorted(numbers, len(ids) * vocabulary) + pack_small(counts)


def unpack_draws(cursor: Cursor, rows: int, vocabulary: int) -> tuple[Array, Array, Array, Array]:
    """Of each row the mean of the logs and how many distinct tokens it has; of those ids and counts, row by row."""
    log_p = cursor.take("<f2", rows)
    used, ids = unpack_rows(cursor, rows, vocabulary)
    return log_p, used, ids, unpack_small(cursor, len(ids))


def as_counts(log_p: Array, used: Array, ids: Array, counts: Array, mass: Array) -> Counts:
    """N rows of draws, as `unpack_draws` gives them, from what has so much mass (N,)."""
    taken = places(used)
    shares = as_table(counts, taken, 0, np.float32)
    shares *= (mass / shares.sum(1).clip(min=1)).astype(np.float32)[:, None]
    of_rows = (log_p.astype(np.float32) * mass).astype(np.float32)
    return Counts(torch.from_numpy(as_table(ids, taken, 0, np.int64)), torch.from_numpy(shares), torch.from_numpy(of_rows))
