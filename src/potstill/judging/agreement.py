"""How far a judge can be trusted: whether it accepts what a verifier says is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from potstill.judging.estimates import Estimate
from potstill.metrics import bootstrap_ci, proportion_ci

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Agreement:
    """accuracy: the share of answers on which judge and verifier agree. kappa: Cohen's, which takes off what two would agree
    on by chance (Cohen 1960, "A Coefficient of Agreement for Nominal Scales"); None where one of them always says the same and
    so does the other. wrongly_accepted, wrongly_rejected: answers on which they differ. Intervals take rows as drawn, each with
    all its answers."""

    accuracy: Estimate
    kappa: Estimate | None
    wrongly_accepted: int
    wrongly_rejected: int


def agreement(by_row: Sequence[Sequence[tuple[bool, bool]]]) -> Agreement | None:
    """How a judge agrees with a verifier; None where there is no answer that both spoke about.

    Args:
        by_row: For each row, a pair an answer to it: whether the judge accepts it, whether the verifier does.
    """
    import numpy as np

    spoken = [pairs for pairs in by_row if pairs]
    if not spoken:
        return None
    cells = np.array([[pairs.count(kind) for kind in _CELLS] for pairs in spoken], dtype=np.float64)
    total = cells.sum(axis=0)
    n = int(total.sum())
    accuracy = _agreed(total)
    if accuracy in (0.0, 1.0):  # resampling would find nothing else; as many draws as there are rows
        interval = proportion_ci(round(accuracy * len(spoken)), len(spoken))
    else:
        interval = bootstrap_ci(range(len(spoken)), statistic=lambda drawn: _agreed(_sum(cells, drawn)))
    kappa = cohens_kappa(*map(int, total))
    return Agreement(
        Estimate(accuracy, interval, n),
        None if kappa is None else Estimate(kappa, _kappa_interval(cells), n),
        wrongly_accepted=int(total[1]),
        wrongly_rejected=int(total[2]),
    )


# (judge, verifier): both accept; the judge alone; the verifier alone; neither.
_CELLS = ((True, True), (True, False), (False, True), (False, False))


def cohens_kappa(both: int, first_alone: int, second_alone: int, neither: int) -> float | None:
    """Cohen's kappa of two raters who say yes or no, from the four counts; None where chance alone explains all."""
    n = both + first_alone + second_alone + neither
    observed = (both + neither) / n
    yes_first, yes_second = (both + first_alone) / n, (both + second_alone) / n
    expected = yes_first * yes_second + (1 - yes_first) * (1 - yes_second)
    return None if expected == 1 else (observed - expected) / (1 - expected)


def _kappa_interval(cells: NDArray[np.float64]) -> tuple[float, float]:
    """Bootstrapped over rows; a draw in which it is not defined counts as no better than chance."""
    return bootstrap_ci(range(len(cells)), statistic=lambda drawn: cohens_kappa(*map(int, _sum(cells, drawn))) or 0.0)


def _sum(cells: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = cells[drawn.astype(int)].sum(axis=0)
    return total


def _agreed(total: NDArray[np.float64]) -> float:
    return float((total[0] + total[3]) / total.sum())
