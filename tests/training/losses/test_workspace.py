"""Memory that is used again from step to step, and never while somebody needs it."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from potstill.training.collator import Collator, TokenisedRow
from potstill.training.head import sum_tied_gradients_in_place
from potstill.training.losses.mix import MixSchedule, Schedule
from potstill.training.losses.workspace import Workspace
from potstill.training.objective import Objective

VOCABULARY = 190
CPU = torch.device("cpu")


def test_memory_is_kept_by_name_and_grows() -> None:
    workspace = Workspace()
    first = workspace.take("a", (4, 6), torch.float32, CPU)
    assert workspace.take("a", (3, 5), torch.float32, CPU).data_ptr() == first.data_ptr()
    assert workspace.take("b", (3, 5), torch.float32, CPU).data_ptr() != first.data_ptr()
    larger = workspace.take("a", (5, 6), torch.float32, CPU)
    assert larger.shape == (5, 6)
    assert larger.is_contiguous()
    assert workspace.take("a", (4, 6), torch.float32, CPU).data_ptr() == larger.data_ptr()
    assert workspace.take("a", (4, 6), torch.bfloat16, CPU).dtype == torch.bfloat16


def test_on_a_device_whose_memory_torch_keeps_nothing_is_kept() -> None:
    assert Workspace().take("a", (4, 6), torch.float32, torch.device("meta")).device.type == "meta"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_steps_of_several_batches_give_the_same_gradients_in_memory_of_the_step_before(tied: bool, half: bool) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=tied, pad_token_id=0,
    ))
    sum_tied_gradients_in_place(model)
    batches = [batch_of(length) for length in (40, 9, 64, 20, 30)]
    one = objective()

    def gradients(of_step: tuple[int, ...], *, fresh: bool) -> tuple[dict[str, torch.Tensor], int]:
        model.zero_grad()
        for i in of_step:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = (objective() if fresh else one).of_batch(model, model, batches[i], 7, 0.0).loss
            loss.backward()
        of_head = model.lm_head.weight.grad
        return {name: weight.grad.clone() for name, weight in model.named_parameters()}, of_head.data_ptr()

    places = set()
    for of_step in ((0, 1), (2,), (3, 4, 1), (0,)):
        expected, _ = gradients(of_step, fresh=True)
        found, place = gradients(of_step, fresh=False)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        places.add(place)
    if tied:
        assert len(places) == 1


def batch_of(length: int) -> dict[str, torch.Tensor]:
    mask = (False, *[True] * (length - 1))
    rows = [TokenisedRow(tuple(torch.randint(3, VOCABULARY, (length,)).tolist()), mask) for _ in range(2)]
    return Collator(pad_id=0)(rows)


def objective() -> Objective:
    return Objective(MixSchedule({"ce": Schedule.of(1.0)}, Schedule.of(1.0)), None, VOCABULARY, fused=True)
