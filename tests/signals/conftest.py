"""Tiny real teachers, and texts for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from potstill.quiet import quiet_transformers
from potstill.templates import ChatTemplate
from telling import TellingTeacher

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


@pytest.fixture(scope="session")
def teacher(tiny_student: Path) -> TellingTeacher:
    """The tiny student as a teacher that tells its log-probabilities over HTTP."""
    with quiet_transformers():
        network = AutoModelForCausalLM.from_pretrained(tiny_student).float().eval()
        network.model.norm.weight.data *= 12  # peaked, as a trained model's distributions are
        tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    return TellingTeacher(network, tokenizer, ChatTemplate.from_folder(tiny_student))
