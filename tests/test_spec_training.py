"""What the training section of a job file accepts, and what it refuses with which words."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from potstill.spec import TrainingSpec
from potstill.spec_training import ON_DISTRIBUTIONS, LossName
from potstill.training.losses.mix import LOSSES, SOFT_LOSSES


def test_the_job_file_names_the_losses_that_there_are() -> None:
    assert set(get_args(LossName)) == set(LOSSES)
    assert ON_DISTRIBUTIONS == SOFT_LOSSES


def test_fine_tuning_is_the_default_and_distilling_compares_by_forward_kl() -> None:
    assert TrainingSpec().loss == {"ce": 1.0}
    assert TrainingSpec(method="kd").loss == {"forward_kl": 1.0}


def test_a_course_of_temperatures_gives_the_temperatures_to_keep_each_once() -> None:
    assert TrainingSpec(method="kd", temperature=2).temperatures == (2.0,)
    assert TrainingSpec(method="kd", temperature=[(0, 4), (0.5, 1), (0.75, 4)]).temperatures == (4.0, 1.0)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a soft loss without kd": ({"loss": {"forward_kl": 1}}, "needs method: kd"),
    "kd that compares nothing": ({"method": "kd", "loss": {"ce": 1}}, "needs a part of 'loss'"),
    "temperature without kd": ({"temperature": 2}, "method: sft does not compare"),
    "temperature for layers alone": (
        {"method": "kd", "loss": {"hidden": 1}, "signal": {"source": "live"}, "temperature": 2}, "no part of 'loss' compares",
    ),
    "attention from a store": ({"method": "kd", "loss": {"attention": 1}}, "signal: {source: live}"),
    "counts for another divergence": (
        {"method": "kd", "loss": {"ce": 1, "reverse_kl": 1}, "signal": {"encoding": "counts"}}, "unbiased for forward_kl alone",
    ),
    "counts at two temperatures": (
        {"method": "kd", "temperature": [(0, 2), (0.5, 1)], "signal": {"encoding": "counts"}}, "drawn at one temperature",
    ),
    "an encoding of what is not kept": (
        {"method": "kd", "signal": {"source": "live", "encoding": "counts"}}, "'encoding' has no effect with source: live",
    ),
    "draws beside the student": (
        {"method": "kd", "signal": {"source": "live", "draws": 20}}, "'draws' has no effect with source: live",
    ),
    "counts of nothing": ({"method": "kd", "signal": {"encoding": "counts", "draws": 0}}, "counts without draws tell nothing"),
    "a mass of drawn tokens": (
        {"method": "kd", "signal": {"encoding": "counts", "mass": 0.9}}, "'mass' has no effect with encoding: counts",
    ),
    "a weight of 0": ({"loss": {"ce": 0}}, "leave it out"),
    "a course of zeros": ({"method": "kd", "loss": {"forward_kl": [(0, 0), (1, 0)]}}, "leave it out"),
    "a course that begins late": ({"method": "kd", "temperature": [(0.1, 1)]}, "begins at 0"),
    "a course that goes back": ({"method": "kd", "temperature": [(0, 1), (0.5, 2), (0.5, 3)]}, "rise from pair to pair"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_the_reason(case: str) -> None:
    given, reason = REFUSED[case]
    with pytest.raises(ValidationError, match=reason):
        TrainingSpec.model_validate(given)
