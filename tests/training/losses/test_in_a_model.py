"""The fused loss where the trainer computes it: in the place of the head's forward, inside the model's own."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from potstill.training.head import sum_tied_gradients_in_place
from potstill.training.losses.fused import fused_loss
from potstill.training.losses.mix import Mix

VOCABULARY, PADDED = 190, 200


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_gives_the_loss_trains_the_model_as_logits_do(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 11: the model is called as a whole, so that hooks on the head see its parameters in use."""
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=PADDED, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=tied, pad_token_id=0,
    ))
    ids, positions = torch.randint(VOCABULARY, (3, 12)), torch.tensor([2, 3, 17, 30])
    target_ids = torch.randint(VOCABULARY, positions.shape)
    logits = model(input_ids=ids).logits.flatten(0, 1)[positions, :VOCABULARY]
    (torch.nn.functional.cross_entropy(logits, target_ids, reduction="sum") / 9).backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    sum_tied_gradients_in_place(model)
    head, seen, hooked = model.lm_head, [], []

    def loss_of(hidden: torch.Tensor) -> torch.Tensor:
        picked = hidden.flatten(0, -2).index_select(0, positions)
        seen.append(fused_loss(picked, head.weight, head.bias, target_ids, None, None, Mix({"ce": 1.0}), 9, VOCABULARY))
        return seen[0].loss

    head.register_forward_hook(lambda _module, _inputs, output: hooked.append(output.shape))
    monkeypatch.setattr(head, "forward", loss_of)
    model(input_ids=ids, use_cache=False).logits.backward()
    assert hooked == [torch.Size([])]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)
