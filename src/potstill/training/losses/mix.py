"""Which losses a student is trained on, with which weights, at which temperature, and what changes during the training."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SOFT_LOSSES = ("forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl", "total_variation")
TOKEN_LOSSES = ("ce", *SOFT_LOSSES)
LAYER_LOSSES = ("hidden", "attention")
LOSSES = TOKEN_LOSSES + LAYER_LOSSES
"""Every loss, in the order in which figures about them are given."""

OF_COUNTS = ("ce", "forward_kl")
"""What drawn tokens serve: they stand for the teacher's distribution on average, and no other loss is linear in it."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A number that may change during the training: (share of the training that is done, value), in order of the share.

    A constant has a single point. Before the first point its value holds, after the last one the last's.

    Raises:
        ValueError: there is no point, a share is not between 0 and 1, or shares do not rise.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        shares = [share for share, _ in self.points]
        if not shares or not all(0.0 <= share <= 1.0 for share in shares):
            raise ValueError(f"a schedule needs pairs of a share of the training, 0 to 1, and a value, not {self.points}")
        if any(later <= earlier for earlier, later in pairwise(shares)):
            raise ValueError(f"the shares of a schedule must rise, not {shares}")

    @classmethod
    def of(cls, given: float | Sequence[Sequence[float]]) -> Schedule:
        """A number, or a list of [share, value] pairs."""
        if isinstance(given, (int, float)):
            return cls(((0.0, float(given)),))
        return cls(tuple((float(share), float(value)) for share, value in given))

    @property
    def values(self) -> tuple[float, ...]:
        """The values that are listed, each once, rising."""
        return tuple(sorted({value for _, value in self.points}))

    def at(self, share: float) -> float:
        """The value there, on a straight line between the two points around it."""
        i = bisect_right(self.points, share, key=lambda point: point[0])
        if i == 0 or i == len(self.points):
            return self.points[max(i - 1, 0)][1]
        (start, before), (end, after) = self.points[i - 1], self.points[i]
        return before + (after - before) * (share - start) / (end - start)

    def step_at(self, share: float) -> float:
        """The value of the last point that was reached: only listed values are ever used."""
        i = bisect_right(self.points, share, key=lambda point: point[0])
        return self.points[max(i - 1, 0)][1]


@dataclass(frozen=True, slots=True)
class Mix:
    """The losses of one step.

    Attributes:
        weights: What each loss counts, by name. One with weight 0 is computed and reported, and teaches nothing.
        temperature: T in softmax(z / T), of the teacher and the student alike, in soft losses; "ce" is always at 1.
        jsd_beta: b of the generalised Jensen-Shannon divergence, the teacher's share of the mixture.
        skew: l of the two skewed divergences, the share that is mixed into the distribution on the right.

    Raises:
        ValueError: an unknown name, a weight below 0, or a parameter out of its bounds.
    """

    weights: Mapping[str, float]
    temperature: float = 1.0
    jsd_beta: float = 0.5
    skew: float = 0.1

    def __post_init__(self) -> None:
        unknown = [name for name in self.weights if name not in LOSSES]
        if unknown:
            raise ValueError(f"unknown losses {unknown}; known are {', '.join(LOSSES)}")
        if not all(0.0 <= weight < float("inf") for weight in self.weights.values()):
            raise ValueError(f"weights of losses are 0 or more, not {dict(self.weights)}")
        if not (0.0 < self.temperature < float("inf") and 0.0 <= self.jsd_beta <= 1.0 and 0.0 <= self.skew < 1.0):
            raise ValueError(f"temperature above 0, jsd_beta 0 to 1, skew 0 to below 1, not {self}")

    @property
    def token_losses(self) -> tuple[str, ...]:
        """Those on distributions over tokens, in the order of `TOKEN_LOSSES`."""
        return tuple(name for name in TOKEN_LOSSES if name in self.weights)

    @property
    def soft_losses(self) -> tuple[str, ...]:
        """Those that compare distributions, and so need a signal."""
        return tuple(name for name in SOFT_LOSSES if name in self.weights)


@dataclass(frozen=True, slots=True)
class MixSchedule:
    """The losses of a whole training: the same names throughout, with weights and a temperature that may change."""

    weights: Mapping[str, Schedule]
    temperature: Schedule
    jsd_beta: float = 0.5
    skew: float = 0.1

    def at(self, share: float) -> Mix:
        """The losses when this share of the training is done. Weights change gradually; the temperature jumps, because the
        tail masses of a captured signal exist at the listed temperatures alone."""
        weights = {name: schedule.at(share) for name, schedule in self.weights.items()}
        return Mix(weights, self.temperature.step_at(share), self.jsd_beta, self.skew)
