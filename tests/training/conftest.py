"""A tiny random student with SmolLM2's own tokenizer, and rows to train it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from potstill.quiet import quiet_transformers
from potstill.rows import Message, Row
from potstill.student.gguf_reading import gguf_read_once
from potstill.templates import ChatTemplate


@pytest.fixture(scope="session")
def tiny_student(embedded_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of width 32 with random weights; the head is tied to the embedding."""
    folder = tmp_path_factory.mktemp("tiny")
    with quiet_transformers(), gguf_read_once():
        AutoTokenizer.from_pretrained(embedded_gguf.parent, gguf_file=embedded_gguf.name).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny_student: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_student)


@pytest.fixture(scope="session")
def template(tiny_student: Path) -> ChatTemplate:
    return ChatTemplate.from_folder(tiny_student)


def answer_row(index: int, answer: str) -> Row:
    """A row with a question of its own length."""
    question = "please " * (1 + index % 5) + f"help with order {index}"
    return Row(f"r{index}", (Message("user", question), Message("assistant", answer)))


@pytest.fixture(scope="session")
def make_row() -> Callable[[int, str], Row]:
    return answer_row


@pytest.fixture(scope="session")
def rows() -> tuple[list[Row], list[Row]]:
    """21 rows to train on (so that no batch size divides them) and 5 to validate on, with like answers."""
    made = [answer_row(i, f"I will look into order {i} for you." + " Thank you." * (i % 3)) for i in range(26)]
    return made[:21], made[21:]
