"""How sure a mean is: bootstrap and Wilson intervals, and the paired comparison of two models on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95
N_RESAMPLES = 9999  # with the observed arrangement, p-values are multiples of 1/10,000
_CELLS_AT_ONCE = 4_000_000  # resampled values in memory at a time: 32 MB of floats


@dataclass(frozen=True)
class PairedDifference:
    """How much better one model is than another on the same rows."""

    value: float
    """Mean of the differences, a minus b, in the units of the scores."""
    ci95: tuple[float, float]
    """Bootstrap 95 % interval of the mean difference."""
    n: int
    """Rows that both were scored on."""
    p_value: float
    """Two-sided: the chance of a mean difference this far from 0 if the two models were interchangeable."""


def bootstrap_ci(
    values: Sequence[float],
    *,
    statistic: Callable[[NDArray[np.float64]], float] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval (low, high) of a statistic of the values, the mean unless another is given.

    Bias-corrected and accelerated (BCa; Efron 1987, "Better Bootstrap Confidence Intervals") by scipy.stats.bootstrap,
    or the percentile interval where BCa is not defined (no resample falls on one side of the observed value). Values
    that are all equal, a single one included, give an interval of no width: nothing in them tells how much they vary.
    For a share of successes `proportion_ci` is the better interval, above all near 0 and 1.

    Raises:
        ValueError: there are no values.
    """
    import numpy as np

    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("an interval needs at least one value")
    if np.all(data == data[0]):
        point = float(data[0] if statistic is None else statistic(data))
        return point, point
    low, high = _bootstrap(data, statistic, n_resamples, seed, "BCa")
    if np.isnan(low) or np.isnan(high):
        low, high = _bootstrap(data, statistic, n_resamples, seed, "percentile")
    return low, high


def proportion_ci(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval (low, high) of a share of successes, by scipy.stats.binomtest.

    Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference". Unlike a bootstrap it stays
    open at 0 of n and n of n.

    Raises:
        ValueError: n is 0, or successes are not between 0 and n.
    """
    from scipy.stats import binomtest

    if n < 1:
        raise ValueError("a proportion needs at least one trial")
    interval = binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference(
    a: Sequence[float], b: Sequence[float], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> PairedDifference:
    """Compare the scores of two models row by row: mean of a - b, its 95 % interval and a two-sided p-value.

    The interval is that of `bootstrap_ci`. The p-value is a paired permutation test (Fisher 1935, "The Design of
    Experiments"; for language tasks Dror et al. 2018, "The Hitchhiker's Guide to Testing Statistical Significance in
    NLP"): the sign of each difference is flipped at random, exactly enumerated where there are few rows, by
    scipy.stats.permutation_test. Without any difference it is 1.0.

    Raises:
        ValueError: a and b differ in number, or are empty.
    """
    import numpy as np

    if len(a) != len(b):
        raise ValueError(f"a paired comparison needs the same rows on both sides, not {len(a)} and {len(b)}")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return PairedDifference(
        value=float(np.mean(differences)) if differences.size else 0.0,
        ci95=bootstrap_ci(differences.tolist(), n_resamples=n_resamples, seed=seed),
        n=int(differences.size),
        p_value=_sign_flip_p_value(differences, n_resamples, seed),
    )


def _sign_flip_p_value(differences: NDArray[np.float64], n_resamples: int, seed: int) -> float:
    import numpy as np
    from scipy.stats import permutation_test

    # A row without a difference is the same whichever way it is flipped; leaving such rows out (a mean over n or over
    # fewer ranks the flips alike) makes the test exact more often and much cheaper for two models that mostly agree.
    moved = differences[differences != 0]
    if moved.size < 2:  # one row can be flipped one way, and its mirror is as extreme: p = 1
        return 1.0
    result = permutation_test(
        (moved,),
        np.mean,
        permutation_type="samples",  # with a single sample: the signs of the observations
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, _CELLS_AT_ONCE // moved.size),
        alternative="two-sided",
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _bootstrap(
    data: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], float] | None,
    n_resamples: int,
    seed: int,
    method: str,
) -> tuple[float, float]:
    import warnings

    import numpy as np
    from scipy.stats import DegenerateDataWarning, bootstrap

    function: Callable[..., Any] = np.mean if statistic is None else statistic
    # Where BCa is 0/0 the caller falls back to percentiles: no warning about it.
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        interval = bootstrap(
            (data,),
            function,
            n_resamples=n_resamples,
            batch=max(1, _CELLS_AT_ONCE // data.size),
            vectorized=statistic is None,
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(interval.low), float(interval.high)
