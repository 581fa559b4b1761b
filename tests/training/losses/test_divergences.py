"""Each divergence's value and gradient, against the formula in float64 and autograd; and with outcomes that are impossible."""

from __future__ import annotations

import pytest
import torch

from potstill.training.losses.divergences import FLOOR, divergence
from potstill.training.losses.mix import SOFT_LOSSES
from training.losses import reference

INF = float("inf")


@pytest.mark.parametrize("temperature", [0.7, 2.0])
@pytest.mark.parametrize("name", SOFT_LOSSES)
@pytest.mark.parametrize(("jsd_beta", "skew"), [(0.5, 0.1), (0.2, 0.6)])
def test_value_and_gradient_are_those_of_the_formula(name: str, temperature: float, jsd_beta: float, skew: float) -> None:
    p_logits, q_logits = 2 * torch.randn(2, 3, 40, dtype=torch.float64), 2 * torch.randn(2, 3, 40, dtype=torch.float64)
    logits = (q_logits / temperature).requires_grad_()
    log_p, log_q = torch.log_softmax(p_logits / temperature, -1), torch.log_softmax(logits, -1)
    expected = reference.divergence(name, log_p, log_q, jsd_beta, skew)
    value, gradient = divergence(name, jsd_beta=jsd_beta, skew=skew)(log_p, log_q.detach())
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), logits)[0])


@pytest.mark.parametrize(("beta", "name"), [(0.0, "forward_kl"), (1.0, "reverse_kl")])
def test_jsd_at_its_ends_is_forward_and_reverse_kl(beta: float, name: str) -> None:
    log_p, log_q = torch.randn(2, 5, 30).log_softmax(-1)
    ours, other = (divergence(which, jsd_beta=beta, skew=0.1)(log_p, log_q) for which in ("jsd", name))
    torch.testing.assert_close(ours, other)


@pytest.mark.parametrize(("name", "plain"), [("skew_forward_kl", "forward_kl"), ("skew_reverse_kl", "reverse_kl")])
def test_without_skew_the_skewed_ones_are_the_plain_ones(name: str, plain: str) -> None:
    log_p, log_q = torch.randn(2, 5, 30).log_softmax(-1)
    ours, other = (divergence(which, jsd_beta=0.5, skew=0.0)(log_p, log_q) for which in (name, plain))
    torch.testing.assert_close(ours, other)


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_outcomes_impossible_to_both_change_nothing(name: str) -> None:
    """Pitfall 5: padding counts as minus infinity."""
    log_p, log_q = torch.randn(2, 4, 20).log_softmax(-1)
    padded = [torch.nn.functional.pad(each, (0, 7), value=-INF) for each in (log_p, log_q)]
    of = divergence(name, jsd_beta=0.3, skew=0.1)
    (value, gradient), (padded_value, padded_gradient) = of(log_p, log_q), of(*padded)
    torch.testing.assert_close(padded_value, value)
    torch.testing.assert_close(padded_gradient[:, :20], gradient)
    assert (padded_gradient[:, 20:] == 0).all()


@pytest.mark.parametrize("name", SOFT_LOSSES)
@pytest.mark.parametrize("skew", [0.0, 0.1])
def test_what_only_one_of_them_holds_for_impossible_gives_finite_numbers(name: str, skew: float) -> None:
    with_all = torch.tensor([[0.5, 0.3, 0.2]]).log()
    without_last = torch.tensor([[0.6, 0.4, 0.0]]).log()
    for log_p, log_q in ((without_last, with_all), (with_all, without_last)):
        if "forward" in name and skew == 0.0 and log_q is without_last:
            continue  # infinite, rightly; a student's softmax gives no zero
        value, gradient = divergence(name, jsd_beta=0.5, skew=skew)(log_p, log_q)
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()
        torch.testing.assert_close(gradient.sum(-1), torch.zeros(1), rtol=0, atol=1e-5)


def test_reverse_kl_to_a_teacher_without_a_tail_counts_its_tail_as_the_floor() -> None:
    log_p, log_q = torch.tensor([1.0, 0.0]).log(), torch.tensor([0.75, 0.25]).log()
    value, _ = divergence("reverse_kl", jsd_beta=0.5, skew=0.1)(log_p, log_q)
    assert value.item() == pytest.approx(0.75 * log_q[0].item() + 0.25 * (log_q[1].item() - FLOOR))
