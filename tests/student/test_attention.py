"""Which way attention is computed while a student is trained."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from potstill.student.attention import attend_to_short_texts, attention_is_told


@pytest.fixture
def network() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize(("longest", "accelerator", "way"), [(96, False, "eager"), (2048, False, "sdpa"), (96, True, "sdpa")])
def test_only_short_texts_on_a_processor_are_attended_to_step_by_step(
    network: LlamaForCausalLM, longest: int, accelerator: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    attend_to_short_texts(network, longest)
    assert network.config._attn_implementation == way
    with attention_is_told(network):
        assert network.config._attn_implementation == "eager"
    assert network.config._attn_implementation == way


def test_both_ways_give_the_same_and_padding_is_not_seen(network: LlamaForCausalLM) -> None:
    ids = torch.randint(1, 50, (2, 12))
    ids[1, 7:] = 0  # padded on the right, where no earlier token looks
    with torch.no_grad():
        kernel = network(input_ids=ids).logits
        attend_to_short_texts(network, 12)
        steps = network(input_ids=ids).logits
        alone = network(input_ids=ids[1:, :7]).logits
    torch.testing.assert_close(steps, kernel)
    torch.testing.assert_close(steps[1:, :7], alone)
