"""The headline: one true line."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from potstill.reporting import headline
from reporting.synthetic_run import Run, make_run

NOTHING = {
    "accuracy_retention": None,
    "accuracy_gain": None,
    "inference_time_reduction": None,
    "memory_reduction": None,
    "cost_reduction": None,
    "throughput_gain": None,
}
GAIN = {"value": 0.2134, "ci95": [0.18, 0.24], "n": 40, "p_value": 0.0001}


def with_headline(run: Run, **figures: Any) -> dict[str, Any]:
    report = copy.deepcopy(run.report)
    report["headline"] = {**NOTHING, **figures}
    return report


def test_everything_in_one_line(classification: Run) -> None:
    report = with_headline(
        classification,
        accuracy_retention=0.931,
        accuracy_gain=GAIN,
        inference_time_reduction=0.712,
        memory_reduction=0.6,
        cost_reduction=0.65,
        throughput_gain=3.13,
    )
    assert headline(report) == (
        "keeps 93 % of the teacher's accuracy (gain over the untouched student +0.21, p < 0.001), answers in 71 % less time, "
        "with 60 % less memory, at 65 % lower cost, 3.1 × the throughput"
    )


def test_retention_names_self_agreement_where_that_is_its_base(conversation: Run) -> None:
    assert headline(with_headline(conversation, accuracy_retention=0.9)) == (
        "keeps 90 % of the teacher's self-agreement in ROUGE-L"
    )


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        ({"inference_time_reduction": -0.35}, "answers in 35 % more time"),
        ({"memory_reduction": -0.07}, "with 7.0 % more memory"),
        ({"cost_reduction": -2.4}, "at 240 % higher cost"),
        ({"inference_time_reduction": 0.002}, "answers in the same time"),
        ({"throughput_gain": 0.42}, "0.42 × the throughput"),
        ({"accuracy_retention": 1.04}, "reaches 104 % of the teacher's accuracy"),
        ({"accuracy_gain": {**GAIN, "p_value": 0.0342}}, "gains 0.21 accuracy over the untouched student (p = 0.034)"),
        ({"accuracy_gain": {**GAIN, "value": -0.1}}, "loses 0.10 accuracy against the untouched student (p < 0.001)"),
        (
            {"accuracy_retention": 0.5, "accuracy_gain": {**GAIN, "value": -0.1}},
            "keeps 50 % of the teacher's accuracy (gain over the untouched student −0.10, p < 0.001)",
        ),
    ],
)
def test_what_was_not_measured_is_left_out_and_losses_are_called_losses(
    classification: Run, figures: dict[str, Any], line: str
) -> None:
    assert headline(with_headline(classification, **figures)) == line


def test_a_model_alone_is_described_by_what_it_reaches() -> None:
    report = make_run(labels=("distilled",)).report
    figure = report["models"]["distilled"]["rouge_l"]
    assert headline(report) == (
        f"ROUGE-L: distilled {figure['value']:.3f} [{figure['ci95'][0]:.2f}, {figure['ci95'][1]:.2f}]; "
        "nothing was measured to compare it with"
    )
