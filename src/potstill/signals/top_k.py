"""Top-k signals: the most probable tokens that hold a given mass together, the exact mass of all others, and draws from those.

The tail's mass alone does not say where it lies: a student of 700 rows stayed 0.02 nats behind one that saw the whole
distribution. Draws tell forward KL on average (counts.py): were they 200 for all of the mass, a tail of 0.1 has 20 of them.

On disk a position takes 4 bytes for the log of the tail mass at each temperature, and an entry some 21 bits while a vocabulary
has up to 65,536 tokens: 16 for the id, beyond that the bits it needs, and the rest for the logarithm of its probability beside
the largest. Those are bytes that ascend within a position, and so all of a text's are one sorted sequence (coding.py).

Entries are stored once, for all temperatures: log p_T = log p_1 / T - log Z_T. The probabilities of entries and tail add up to
1, and the tail mass is stored exactly, so that Z_T follows from it. The byte holds log(p_max / p), at most 24 nats, in steps
that grow with it: half a step is 0.1 % of a probability near the largest, 2.6 % of one at 1/10 of it, 8 % at 1/1,000. At
temperature 1 that moves a probability by 0.003 at most, and the distribution by less than 0.0005 nats of Kullback-Leibler
divergence. Draws have their own codes at each temperature (draws.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from potstill.errors import InputError
from potstill.signals.coding import pack_sorted, unpack_rows
from potstill.signals.draws import as_counts, mean_log_p, pack_draws, unpack_draws
from potstill.signals.packing import Array, Body, Cursor, as_table, pack_ids, places, unpack_ids
from potstill.signals.selecting import BLOCK, draw, in_blocks, largest
from potstill.signals.signal import TopK

_FINEST = 0.1  # nats: below it steps are about equal, above it they grow in proportion
_CODES = 256
_GROWTH = np.log1p(24.0 / _FINEST) / (_CODES - 1)
_STEPS = (_FINEST * np.expm1(_GROWTH * np.arange(_CODES))).astype(np.float32)  # code to nats below the largest
_LEAST = torch.finfo(torch.float32).tiny  # mass of a tail that has any token: at zero, reverse divergences would be infinite


@dataclass(frozen=True, slots=True)
class TopKEncoding:
    """How top-k signals are kept.

    Attributes:
        vocabulary: The number of real tokens; rows of a head beyond are padding, and never an entry.
        temperatures: Those at which the signals may be asked for.
        mass: Entries are added until they hold this mass, at the hottest of the temperatures.
        top: The most entries a position may have.
        draws: How many draws would stand for all of the mass; the tail has its share of them, and one at least. 0: none.
    """

    vocabulary: int
    temperatures: tuple[float, ...] = (1.0,)
    mass: float = 0.98
    top: int = 64
    draws: int = 200
    name: ClassVar[str] = "top_k"

    @property
    def settings(self) -> dict[str, Any]:
        """What the store's header says of it."""
        return {
            "name": self.name, "vocabulary": self.vocabulary, "temperatures": list(self.temperatures), "mass": self.mass,
            "top": self.top, "draws": self.draws,
        }

    def select(self, logits: torch.Tensor, starts: torch.Tensor) -> tuple[Array, ...]:
        """What is kept of C distributions.

        Args:
            logits: (C, V) float32, -inf at padding.
            starts: (C,) float64 uniform in [0, 1), which decide what is drawn.

        Returns:
            ids (C, K); log(p_max / p) (C, K); entries used (C,); log tails (C, temperatures); ids drawn from the tails
            (C, temperatures, draws), -1 at unused places; the means of their log-probabilities (C, temperatures).
        """
        blocks = in_blocks(logits)
        values, ids = largest(blocks, min(self.top, self.vocabulary))
        used = None
        tails = {}
        for temperature in sorted(self.temperatures, reverse=True):  # the hottest decides how many are used
            whole = _Distributions(blocks, ids, temperature)
            if used is None:
                used = ((whole.entries.cumsum(1) < self.mass).sum(1) + 1).clamp_(max=ids.shape[1])
            tails[temperature] = self._tail(whole, ids, used, starts)
        assert used is not None
        log_tails, drawn, log_p = (torch.stack(part, 1) for part in zip(*(tails[t] for t in self.temperatures), strict=True))
        return tuple(part.cpu().numpy() for part in (ids, values[:, :1] - values, used, log_tails, drawn, log_p))

    def _tail(
        self, whole: _Distributions, ids: torch.Tensor, used: torch.Tensor, starts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """At one temperature the log of the tail's mass (C,), ids drawn from it (C, draws), the mean of their logs (C,)."""
        mass = whole.without(ids, used)
        log_mass = torch.where(used < self.vocabulary, mass.clamp_min(_LEAST), mass).log()
        counts = (mass * self.draws).ceil().long().clamp_(max=self.draws)
        drawn = draw(whole.weights.view(len(ids), -1, BLOCK), whole.sums, starts, counts)
        log_p = mean_log_p(whole.weights, drawn, whole.total)
        return log_mass, torch.nn.functional.pad(drawn, (0, self.draws - drawn.shape[1]), value=-1), log_p

    def pack(self, ids: Array, below: Array, used: Array, log_tails: Array, drawn: Array, log_p: Array) -> bytes:
        """The bytes of one text's positions; arrays as `select` gives them, rows sorted by falling probability."""
        content = self._pack_entries(ids, below, used, log_tails)
        if self.draws:
            content += pack_draws(drawn.swapaxes(0, 1).reshape(-1, drawn.shape[2]), log_p.T.ravel(), self.vocabulary)
        return content

    def _pack_entries(self, ids: Array, below: Array, used: Array, log_tails: Array) -> bytes:
        kept = places(used)
        ids, below = (part[:, : kept.shape[1]][kept] for part in (ids, below))
        codes = np.rint(np.log1p(below / _FINEST) / _GROWTH).clip(0, _CODES - 1).astype(np.int64)
        codes += kept.nonzero()[0] * _CODES
        return log_tails.astype("<f4").tobytes() + pack_sorted(codes, len(used) * _CODES) + pack_ids(ids, self.vocabulary)

    def pack_told(self, signal: TopK) -> bytes:
        """The bytes of one text whose entries an endpoint told; the `top` largest are kept, the others join the tail.

        Only for an encoding at one temperature, which has to be that of the signal.

        Raises:
            ValueError: the encoding has draws, and nobody told any.
        """
        if self.draws:
            raise ValueError("what was told has no draws")
        order = signal.logprobs.argsort(dim=1, descending=True, stable=True)
        ids, logprobs = signal.ids.gather(1, order), signal.logprobs.gather(1, order)
        log_tails = torch.logaddexp(logprobs[:, self.top :].logsumexp(1), signal.log_tail)
        used = (logprobs > -torch.inf).sum(1).clamp_(max=self.top)
        below = logprobs[:, :1] - logprobs
        return self._pack_entries(ids.numpy(), below.numpy(), used.numpy(), log_tails[:, None].numpy())

    def decode(self, bodies: Sequence[Body], temperature: float) -> TopK:
        """The signals of several texts, one after the other.

        Raises:
            InputError: this temperature is not among those stored.
        """
        if temperature not in self.temperatures:
            raise InputError(
                "the signals were not captured at this temperature", where="training.temperature", found=f"{temperature:g}",
                expected=" or ".join(f"{known:g}" for known in self.temperatures), hint="capture them anew at this one",
            )
        if not bodies:
            return TopK(torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1), torch.zeros(0))
        at = self.temperatures.index(temperature)
        *parts, drawn = zip(*map(self._parts, bodies), strict=True)
        used, tails, codes, ids = map(np.concatenate, parts)
        log_tail = np.ascontiguousarray(tails[:, at])
        logits = -_STEPS / np.float32(temperature)  # of a code, beside the largest
        sums = np.concatenate([[0.0], np.exp(logits, dtype=np.float64)[codes].cumsum()])
        ends = used.cumsum()
        total = (sums[ends] - sums[ends - used]).clip(min=1e-30)
        with np.errstate(divide="ignore"):  # a tail that holds all, to rounding, leaves nothing to the entries
            kept_mass = np.log(-np.expm1(np.minimum(log_tail.astype(np.float64), 0.0)))
        taken = places(used)
        log_p = as_table(logits[codes], taken, -np.inf, np.float32)
        log_p += (kept_mass - np.log(total)).astype(np.float32)[:, None]
        table = as_table(ids, taken, 0, np.int64)
        told = TopK(torch.from_numpy(table), torch.from_numpy(log_p), torch.from_numpy(log_tail))
        if not self.draws:
            return told
        of_draws = zip(*(_at(part, at, len(self.temperatures)) for part in drawn), strict=True)
        of_log_p, used, ids, counts = map(np.concatenate, of_draws)
        return replace(told, drawn=as_counts(of_log_p, used, ids, counts, np.exp(log_tail)))

    def _parts(self, body: Body) -> tuple[Array, Array, Array, Array, tuple[Array, ...]]:
        """Of each position how many entries it has, and its tails; of the entries codes and ids; and what was drawn."""
        cursor, count, temperatures = Cursor(body.content), body.positions, len(self.temperatures)
        tails = cursor.take("<f4", count * temperatures).reshape(count, temperatures)
        used, codes = unpack_rows(cursor, count, _CODES)
        ids = unpack_ids(cursor, len(codes), self.vocabulary)
        drawn = unpack_draws(cursor, count * temperatures, self.vocabulary) if self.draws else ()
        return used, tails, codes, ids, drawn


def _at(drawn: tuple[Array, ...], at: int, temperatures: int) -> tuple[Array, Array, Array, Array]:
    """The part of what `unpack_draws` gave that is of one temperature of several, which follow each other."""
    log_p, used, ids, counts = drawn
    rows = len(used) // temperatures
    here = slice(at * rows, (at + 1) * rows)
    start = int(used[: at * rows].sum())
    stop = start + int(used[here].sum())
    return log_p[here], used[here], ids[start:stop], counts[start:stop]


class _Distributions:
    """C distributions at one temperature, in proportion, of which entries can be taken out.

    Sums are over blocks and in float64: a running sum over a vocabulary, such as softmax has inside, is off by some 1e-5 in
    float32. And what is left is summed up, for 1 minus the entries would lose a small mass to rounding.

    Attributes:
        weights: (C, V) float32, filled up to whole blocks.
        sums: (C, blocks) float64, those of the weights of each block.
        total: (C,) float64, what a weight is to be divided by.
        entries: (C, K) float64, the probabilities of the ids.
    """

    def __init__(self, blocks: torch.Tensor, ids: torch.Tensor, temperature: float) -> None:
        logits = blocks.flatten(1)
        self.weights = torch.softmax(logits if temperature == 1.0 else logits / temperature, dim=1)
        entries = self.weights.gather(1, ids).double()
        self.weights.scatter_(1, ids, 0.0)
        self.sums = self.weights.view(blocks.shape).sum(-1, dtype=torch.float64)
        self.total = self.sums.sum(1) + entries.sum(1)
        self.entries = entries / self.total[:, None]

    def without(self, ids: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        """Only what is not among the first `used` entries stays in weights and sums; gives its mass (C,)."""
        unused = torch.arange(ids.shape[1], device=ids.device) >= used[:, None]
        back = self.entries * unused * self.total[:, None]
        self.weights.scatter_(1, ids, back.float())
        self.sums.scatter_add_(1, ids // BLOCK, back)
        return self.sums.sum(1) / self.total
