"""Layers that multiply in bfloat16 for a while: nearly the same numbers, and afterwards the very same."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from potstill.student import processor
from potstill.student.processor import layers_multiply_fast


def test_only_inside_and_only_the_products_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.2
    )
    network, ids = LlamaForCausalLM(config).eval(), torch.arange(3, 40)[None]
    with torch.no_grad():
        before = network(ids).logits
        monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: True)
        with layers_multiply_fast(network):
            inside = network(ids).logits
        monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: False)
        with layers_multiply_fast(network):
            elsewhere = network(ids).logits
        after = network(ids).logits
    assert inside.dtype == torch.float32
    assert 0 < (inside - before).norm() / before.norm() < 0.02  # bfloat16 has eight bits: 0.4 % a product
    assert torch.equal(elsewhere, before)
    assert torch.equal(after, before)
