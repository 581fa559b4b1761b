"""The objective against a plain float64 reference, on fresh random inputs."""

from __future__ import annotations

import torch

from potstill.training.losses.fused import dense_loss
from potstill.training.losses.mix import Mix


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
    return dense_loss(logits, targets, None, None, Mix({"ce": 1.0}), count, logits.shape[1]).loss


def reference(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The sum over rows of log sum exp z - z_target, written out."""
    wide = logits.double()
    return sum((wide[i].exp().sum().log() - wide[i, target] for i, target in enumerate(targets.tolist())), torch.tensor(0.0))


def test_value_and_gradient_agree_with_the_formula() -> None:
    logits = (4 * torch.randn(13, 50)).requires_grad_()
    targets = torch.randint(50, (13,))
    (gradient,) = torch.autograd.grad(cross_entropy(logits, targets, 20), logits)
    (expected,) = torch.autograd.grad(reference(logits, targets) / 20, logits)
    # float32 beside float64: a few roundings of a sum apart, whatever the draw.
    torch.testing.assert_close(cross_entropy(logits, targets, 20).double(), reference(logits, targets) / 20, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, expected)


def test_batches_of_one_step_weigh_every_token_alike() -> None:
    logits, targets = torch.randn(10, 30, requires_grad=True), torch.randint(30, (10,))
    whole = cross_entropy(logits, targets, torch.tensor(10))
    # 1 token in the first batch and 9 in the second: a mean of the two means would weigh the first token 9 times.
    parts = cross_entropy(logits[:1], targets[:1], torch.tensor(10)) + cross_entropy(logits[1:], targets[1:], torch.tensor(10))
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (parts, whole)))


def test_a_batch_without_targets_gives_zero_with_a_graph() -> None:
    head = torch.nn.Linear(8, 30)
    loss = cross_entropy(head(torch.randn(0, 8)), torch.zeros(0, dtype=torch.int64), torch.tensor(0))
    loss.backward()
    assert loss.item() == 0.0
    assert head.weight.grad is not None
    assert head.weight.grad.abs().sum() == 0


def test_half_precision_logits_are_widened_before_the_softmax() -> None:
    logits, targets = (8 * torch.randn(40, 5_000)).bfloat16(), torch.randint(5_000, (40,))
    loss = cross_entropy(logits, targets, 40)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), reference(logits, targets) / 40, rtol=1e-5, atol=1e-5)
