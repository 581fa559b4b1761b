"""Top-k signals: the most probable tokens that hold a given mass together, and the exact mass of all others.

On disk a position takes 4 bytes for the log of the tail mass at each temperature, and an entry some 21 bits while a vocabulary
has up to 65,536 tokens: 16 for the id, beyond that the bits it needs, and the rest for the logarithm of its probability beside
the largest. Those are bytes that ascend within a position, and so all of a text's are one sorted sequence (coding.py).

Entries are stored once, for all temperatures: log p_T = log p_1 / T - log Z_T. The probabilities of entries and tail add up to
1, and the tail mass is stored exactly, so that Z_T follows from it. The byte holds log(p_max / p), at most 24 nats, in steps
that grow with it: half a step is 0.1 % of a probability near the largest, 2.6 % of one at 1/10 of it, 8 % at 1/1,000. At
temperature 1 that moves a probability by 0.003 at most, and the distribution by less than 0.0005 nats of Kullback-Leibler
divergence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from potstill.errors import InputError
from potstill.signals.coding import pack_sorted, unpack_sorted
from potstill.signals.packing import Array, Body, Cursor, as_table, pack_ids, places, unpack_ids
from potstill.signals.selecting import in_blocks, largest
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
    """

    vocabulary: int
    temperatures: tuple[float, ...] = (1.0,)
    mass: float = 0.98
    top: int = 64
    name: ClassVar[str] = "top_k"

    @property
    def settings(self) -> dict[str, Any]:
        """What the store's header says of it."""
        return {
            "name": self.name, "vocabulary": self.vocabulary, "temperatures": list(self.temperatures), "mass": self.mass,
            "top": self.top,
        }

    def select(self, logits: torch.Tensor, starts: torch.Tensor) -> tuple[Array, ...]:
        """What is kept of C distributions: ids (C, K), log(p_max / p) (C, K), entries used (C,), log tails (C, temperatures).

        Args:
            logits: (C, V) float32, -inf at padding.
            starts: Not needed here.
        """
        blocks = in_blocks(logits)
        values, ids = largest(blocks, min(self.top, self.vocabulary))
        masses = {temperature: _masses(blocks, ids, temperature) for temperature in self.temperatures}
        entries, _ = masses[max(self.temperatures)]
        used = ((entries.cumsum(1) < self.mass).sum(1) + 1).clamp_(max=ids.shape[1])
        tails = torch.stack([_tail(entries, rest, used) for entries, rest in masses.values()], dim=1)
        tails = torch.where((used < self.vocabulary)[:, None], tails.clamp_min(_LEAST), tails)
        return tuple(part.cpu().numpy() for part in (ids, values[:, :1] - values, used, tails.log()))

    def pack(self, ids: Array, below: Array, used: Array, log_tails: Array) -> bytes:
        """The bytes of one text's positions; arrays as `select` gives them, rows sorted by falling probability."""
        kept = places(used)
        ids, below = (part[:, : kept.shape[1]][kept] for part in (ids, below))
        codes = np.rint(np.log1p(below / _FINEST) / _GROWTH).clip(0, _CODES - 1).astype(np.int64)
        codes += kept.nonzero()[0] * _CODES
        return log_tails.astype("<f4").tobytes() + pack_sorted(codes, len(used) * _CODES) + pack_ids(ids, self.vocabulary)

    def pack_told(self, signal: TopK) -> bytes:
        """The bytes of one text whose entries an endpoint told; the `top` largest are kept, the others join the tail.

        Only for an encoding at one temperature, which has to be that of the signal.
        """
        order = signal.logprobs.argsort(dim=1, descending=True, stable=True)
        ids, logprobs = signal.ids.gather(1, order), signal.logprobs.gather(1, order)
        log_tails = torch.logaddexp(logprobs[:, self.top :].logsumexp(1), signal.log_tail)
        used = (logprobs > -torch.inf).sum(1).clamp_(max=self.top)
        return self.pack(ids.numpy(), (logprobs[:, :1] - logprobs).numpy(), used.numpy(), log_tails[:, None].numpy())

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
        used, tails, codes, ids = zip(*map(self._parts, bodies), strict=True)
        used_of, log_tail = np.concatenate(used), np.concatenate([part[:, at] for part in tails])
        logits = as_table([-_STEPS[part] / np.float32(temperature) for part in codes], used_of, -np.inf, np.float32)
        total = np.exp(logits).sum(1, dtype=np.float64).clip(min=1e-30)
        with np.errstate(divide="ignore"):  # a tail that holds all, to rounding, leaves nothing to the entries
            kept_mass = np.log(-np.expm1(np.minimum(log_tail.astype(np.float64), 0.0)))
        logits += (kept_mass - np.log(total)).astype(np.float32)[:, None]
        table = as_table(ids, used_of, 0, np.int64)
        return TopK(torch.from_numpy(table), torch.from_numpy(logits), torch.from_numpy(log_tail.copy()))

    def _parts(self, body: Body) -> tuple[Array, Array, Array, Array]:
        """Of each position how many entries it has, and its tails; of the entries codes and ids."""
        cursor, count = Cursor(body.content), body.positions
        tails = cursor.take("<f4", count * len(self.temperatures)).reshape(count, len(self.temperatures))
        rows, codes = np.divmod(unpack_sorted(cursor, count * _CODES), _CODES)
        return np.bincount(rows, minlength=count), tails, codes, unpack_ids(cursor, len(codes), self.vocabulary)


def _masses(blocks: torch.Tensor, ids: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The probabilities (C, K) of `ids` at a temperature, and the mass (C,) of all others, in float64.

    The others are summed up, for 1 minus the entries would lose a small mass to rounding; and by blocks, for a running sum over
    a vocabulary, such as softmax has inside, is off by some 1e-5 in float32.
    """
    logits = blocks.flatten(1)
    weights = torch.softmax(logits if temperature == 1.0 else logits / temperature, dim=1)
    entries = weights.gather(1, ids).double()
    rest = weights.scatter_(1, ids, 0.0).view(blocks.shape).sum(-1, dtype=torch.float64).sum(-1)
    total = rest + entries.sum(1)
    return entries / total[:, None], rest / total


def _tail(entries: torch.Tensor, rest: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """The mass (C,) of all but the first `used` entries, the smallest added first."""
    unused = torch.arange(entries.shape[1], device=entries.device) >= used[:, None]
    return rest + (entries * unused).flip(1).cumsum(1)[:, -1]
