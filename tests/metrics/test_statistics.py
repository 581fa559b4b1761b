"""Intervals and the paired test, against closed forms and enumerations done by hand."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys

import numpy as np
import pytest

from potstill.metrics import PairedDifference, bootstrap_ci, paired_difference, proportion_ci


def test_the_interval_of_a_mean_is_the_normal_one_on_normal_data() -> None:
    values = np.random.default_rng(7).normal(loc=3.0, scale=2.0, size=400)
    half = 1.96 * values.std(ddof=1) / np.sqrt(values.size)
    low, high = bootstrap_ci(values.tolist(), seed=1)
    # 5 % of the half width: the Monte Carlo error of a 95 % bound at 9,999 resamples is about 2 %
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [0.1, 0.9, 0.4, 0.7, 0.2, 0.8]
    assert bootstrap_ci(values, seed=3) == bootstrap_ci(values, seed=3)
    assert bootstrap_ci(values, seed=3) != bootstrap_ci(values, seed=4)


def test_another_statistic() -> None:
    values = np.random.default_rng(0).exponential(size=101)
    low, high = bootstrap_ci(values.tolist(), statistic=lambda sample: float(np.median(sample)), n_resamples=999, seed=0)
    assert low < float(np.median(values)) < high
    assert high < values.max()


def test_values_that_do_not_vary_give_an_interval_of_no_width() -> None:
    assert bootstrap_ci([0.5, 0.5, 0.5], seed=0) == (0.5, 0.5)
    assert bootstrap_ci([0.25], seed=0) == (0.25, 0.25)
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_ci([], seed=0)


def test_an_interval_is_finite_where_bca_is_not_defined() -> None:
    # Leaving out any one value leaves the median at 0, so that BCa's acceleration is 0/0.
    values = [0.0] * 5 + [1.0] * 2
    low, high = bootstrap_ci(values, statistic=lambda sample: float(np.median(sample)), n_resamples=199, seed=0)
    assert 0.0 <= low <= high <= 1.0


def test_wilson() -> None:
    # Wilson's bounds solve (p - x/n)^2 = z^2 p (1 - p) / n; at x = 0 the upper one is z^2 / (n + z^2)
    z = statistics.NormalDist().inv_cdf(0.975)
    assert proportion_ci(0, 10) == pytest.approx((0.0, z**2 / (10 + z**2)))
    for bound in proportion_ci(8, 10):
        assert (bound - 0.8) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / 10)
    with pytest.raises(ValueError, match="at least one trial"):
        proportion_ci(0, 0)


def exact_p_value(differences: list[float]) -> float:
    observed = abs(sum(differences))
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    extreme = sum(abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) >= observed - 1e-12 for signs in flips)
    return extreme / len(flips)


@pytest.mark.parametrize(
    "differences", [[1.0] * 5, [3.0, -1.0], [0.2, 0.0, 0.3, -0.1, 0.0, 0.4], [0.1, 0.1, 0.1], [2.0, 0.0], [-0.5] * 8 + [0.0]]
)
def test_few_rows_give_the_exact_p_value(differences: list[float]) -> None:
    result = paired_difference(differences, [0.0] * len(differences), seed=0)
    assert result.p_value == pytest.approx(exact_p_value(differences))
    assert result.value == pytest.approx(sum(differences) / len(differences))
    assert result.n == len(differences)


def test_pairs_find_a_small_gain_that_the_spread_of_the_rows_would_hide() -> None:
    rng = np.random.default_rng(5)
    difficulty = rng.normal(scale=10.0, size=300)
    a, b = difficulty + 0.3 + rng.normal(scale=0.5, size=300), difficulty
    result = paired_difference(a.tolist(), b.tolist(), seed=0)
    assert result.ci95[0] > 0
    assert result.ci95[0] < result.value < result.ci95[1]
    assert result.p_value < 0.01


def test_a_difference_of_nothing() -> None:
    assert paired_difference([0.5, 1.0], [0.5, 1.0], seed=0) == PairedDifference(0.0, (0.0, 0.0), 2, 1.0)


def test_the_p_value_of_equal_models_is_seldom_small() -> None:
    rng = np.random.default_rng(11)
    p_values = [
        paired_difference(rng.normal(size=30).tolist(), rng.normal(size=30).tolist(), n_resamples=199, seed=i).p_value
        for i in range(100)
    ]
    # Uniform under the null: 5 of 100 expected below 0.05, more than 12 in about one run of a thousand.
    assert sum(p < 0.05 for p in p_values) <= 12
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.1)


def test_rows_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="same rows on both sides, not 2 and 1"):
        paired_difference([1.0, 2.0], [1.0], seed=0)
    with pytest.raises(ValueError, match="at least one value"):
        paired_difference([], [], seed=0)


def test_importing_the_metrics_imports_no_heavy_library() -> None:
    heavy = {"numpy", "scipy", "sacrebleu", "rouge_score", "nltk", "math_verify", "sympy", "torch"}
    code = f"import sys, potstill.metrics; print(sorted({heavy!r} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
