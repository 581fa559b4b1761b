"""Tiny real teachers, and texts for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

VOCABULARY = 300
TINY = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.5,
}


def tiny_network(config: type[Any] = LlamaConfig, **more: Any) -> Any:
    """A model with random weights large enough that its distributions are peaked."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(**{**TINY, **more})).float().eval()


@pytest.fixture(scope="session")
def network() -> Any:
    return tiny_network()
