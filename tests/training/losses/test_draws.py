"""Forward KL from tokens that were drawn: right on average, and nothing for a student who is its teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from potstill.signals.signal import Signal
from potstill.training.losses.mix import Mix
from training.losses.reference import relative_error
from training.losses.teachers import Case, random_case

DRAWN: dict[str, Callable[[Case], Signal]] = {
    "counts": lambda case: case.counts(draws=12), "top_k": lambda case: case.top_k_and_draws(1.0, k=3),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_value_and_gradients_of_drawn_tokens_are_those_of_forward_kl_on_average(kind: str) -> None:
    weights = torch.rand(4) + 0.1
    weights[0] = 0.0  # there top_k has no draws
    case, mix = replace(random_case(positions=4), target_weights=weights), Mix({"forward_kl": 1.0})
    losses = [case.loss(DRAWN[kind](case), mix).loss for _ in range(1_500)]
    drawn = [torch.cat([torch.autograd.grad(loss, case.hidden)[0].flatten(), loss.detach()[None]]) for loss in losses]
    whole = case.loss(case.dense(1.0), mix).loss
    right = torch.cat([torch.autograd.grad(whole, case.hidden)[0].flatten(), whole.detach()[None]])
    mean, deviation = torch.stack(drawn).mean(0), torch.stack(drawn).std(0) / len(drawn) ** 0.5
    # 49 numbers, each within five standard errors but once in 35,000 runs.
    assert ((mean - right).abs() <= 5 * deviation + 1e-6).all()
    assert relative_error(mean, right.double()) < 0.1


@pytest.mark.parametrize("kind", DRAWN)
def test_a_student_who_is_its_teacher_has_no_divergence_whatever_was_drawn(kind: str) -> None:
    case = random_case()
    hidden, weight, bias = (tensor.detach() for tensor in case.trained)
    same = replace(case, teacher_hidden=hidden, teacher_weight=weight, teacher_bias=bias)
    assert same.loss(DRAWN[kind](same), Mix({"forward_kl": 1.0})).loss.item() == pytest.approx(0.0, abs=1e-5)
