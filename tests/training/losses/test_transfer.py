"""Losses on hidden states and attention: which layers, what value, what gradient."""

from __future__ import annotations

import pytest
import torch

from potstill.training.losses.transfer import Projectors, attention_loss, attention_map, hidden_loss, layer_map


@pytest.mark.parametrize(
    ("layers", "kept", "expected"),
    [
        ((4, 12), None, ((0, 2), (1, 5), (2, 8), (3, 11))),
        ((3, 3), None, ((0, 0), (1, 1), (2, 2))),
        ((6, 2), None, ((2, 0), (5, 1))),
        ((3, 10), [0, 4, 9], ((0, 3), (1, 8), (2, 9))),
        ((2, 10), [2, 3], ((0, 2), (1, 9))),
    ],
)
def test_layers_that_belong_together(layers: tuple[int, int], kept: list[int] | None, expected: object) -> None:
    assert layer_map(*layers, kept) == expected


def test_the_attention_of_a_kept_layer_is_compared_with_its_own() -> None:
    assert attention_map(3, 10, [0, 4, 9]) == ((0, 0), (1, 4), (2, 9))
    assert attention_map(2, 10) == layer_map(2, 10)


@pytest.mark.parametrize("kept", [[0, 1], [0, 1, 1], [0, 5, 12], [3, 2, 1]])
def test_kept_layers_that_cannot_be_are_refused(kept: list[int]) -> None:
    with pytest.raises(ValueError, match="rising layers"):
        layer_map(3, 12, kept)


def test_equal_states_cost_nothing_before_the_projectors_have_learnt() -> None:
    state = torch.randn(5, 8)
    assert hidden_loss(Projectors(1, 8, 8)([state]), [state], None, 5).item() == pytest.approx(0.0, abs=1e-12)


def test_the_error_of_states_is_relative_to_the_teachers_size() -> None:
    states, aims = [torch.randn(6, 8), torch.randn(6, 8)], [torch.randn(6, 8), 1_000 * torch.randn(6, 8)]
    weights = torch.rand(6)
    expected = torch.tensor(0.0)
    for state, aim in zip(states, aims, strict=True):
        for i in range(6):
            expected += weights[i] * ((state[i] - aim[i]).norm() / aim[i].norm()) ** 2 / 2 / 20
    torch.testing.assert_close(hidden_loss(states, aims, weights, torch.tensor(20)), expected)


def probabilities(heads: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Causal attention of 2 texts of 5 tokens."""
    scores = torch.randn(2, heads, 5, 5, dtype=dtype)
    return scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf).softmax(-1)


def test_attention_of_queries_that_are_no_targets_is_left_alone() -> None:
    student, teacher, positions = probabilities(3), probabilities(3), torch.tensor([1, 2, 8])
    expected = 0.0
    for position in positions.tolist():
        b, i = divmod(position, 5)
        for h in range(3):
            p, q = teacher[b, h, i, : i + 1], student[b, h, i, : i + 1]
            expected += (p * (p / q).log()).sum().item() / 3 / 7
    assert attention_loss([student], [teacher], positions, None, 7).item() == pytest.approx(expected)
    changed = student.clone()
    changed[1, :, 4] = 0.2
    assert attention_loss([changed], [teacher], positions, None, 7).item() == pytest.approx(expected)


def test_unequal_numbers_of_heads_are_averaged() -> None:
    student, teacher, positions = probabilities(2), probabilities(6), torch.tensor([3, 4])
    averaged = [each.mean(1, keepdim=True) for each in (student, teacher)]
    ours = attention_loss([student], [teacher], positions, None, 2)
    torch.testing.assert_close(ours, attention_loss([averaged[0]], [averaged[1]], positions, None, 2))


def test_gradients_are_those_of_the_values() -> None:
    projectors, weights = Projectors(2, 3, 4).double(), torch.rand(4, dtype=torch.float64)
    states = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    aims = [torch.randn(4, 4, dtype=torch.float64) for _ in range(2)]
    parameters = list(projectors.parameters())

    def of_states(*inputs: torch.Tensor) -> torch.Tensor:
        return hidden_loss([state @ matrix.T for state, matrix in zip(inputs[:2], inputs[2:], strict=True)], aims, weights, 9)

    assert torch.autograd.gradcheck(of_states, (*states, *parameters))
    torch.testing.assert_close(of_states(*states, *parameters), hidden_loss(projectors(states), aims, weights, 9))
    scores, teacher = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True), probabilities(3)
    positions = torch.tensor([0, 3, 7, 9])
    assert torch.autograd.gradcheck(lambda s: attention_loss([s.softmax(-1)], [teacher], positions, weights, 9), (scores,))


def test_masked_attention_gives_no_nan() -> None:
    scores = torch.randn(2, 3, 5, 5, requires_grad=True)
    masked = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf).softmax(-1)
    attention_loss([masked], [probabilities(3, torch.float32)], torch.arange(10), None, 10).backward()
    assert torch.isfinite(scores.grad).all()


def test_a_step_cut_into_batches_gives_the_same() -> None:
    states, aims, weights = torch.randn(7, 6, requires_grad=True), torch.randn(7, 6), torch.rand(7)
    whole = hidden_loss([states], [aims], weights, 7)
    cut = hidden_loss([states[:2]], [aims[:2]], weights[:2], 7) + hidden_loss([states[2:]], [aims[2:]], weights[2:], 7)
    torch.testing.assert_close(whole, cut)
    torch.testing.assert_close(*(torch.autograd.grad(loss, states)[0] for loss in (whole, cut)))


def test_a_batch_without_targets_gives_zero_with_a_graph() -> None:
    """Pitfall 12."""
    projectors, state = Projectors(1, 4, 6), torch.randn(0, 4)
    scores = torch.randn(2, 3, 5, 5, requires_grad=True)
    nowhere = torch.zeros(0, dtype=torch.int64)
    loss = hidden_loss(projectors([state]), [torch.randn(0, 6)], None, torch.tensor(0))
    loss = loss + attention_loss([scores.softmax(-1)], [probabilities(2, torch.float32)], nowhere, None, 0)
    loss.backward()
    assert loss.item() == 0.0
    assert projectors.maps[0].weight.grad.abs().sum() == 0
    assert scores.grad.abs().sum() == 0
