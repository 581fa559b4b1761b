"""Tiny chat models with random weights: as a folder for transformers, and as a GGUF file for llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from exporting.gguf_support import byte_level_tokenizer, save
from potstill.exporting.gguf import export_gguf
from potstill.quiet import quiet_transformers

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BOS, END_OF_TURN = 0, 2  # ids of <|endoftext|> and <|im_end|>


def chat_tokenizer(rule: str, template: str | None = CHAT) -> PreTrainedTokenizerFast:
    tokenizer = byte_level_tokenizer(rule)
    tokenizer.chat_template = template
    return tokenizer


def write_folder(folder: Path, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Path:
    """A llama of two layers; `changes` are settings of its configuration. Its weights are spread so that no two tokens tie."""
    settings: dict[str, Any] = {
        "vocab_size": 1280, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3, "bos_token_id": BOS,
        "eos_token_id": END_OF_TURN, "pad_token_id": END_OF_TURN,
    }
    torch.manual_seed(0)
    network = LlamaForCausalLM(LlamaConfig(**{**settings, **changes}))
    with quiet_transformers():
        return save(folder, network, tokenizer)


def write_gguf(file: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """The same model as a file, with a longer window."""
    folder = write_folder(file.with_suffix(""), tokenizer, max_position_embeddings=1024)
    with quiet_transformers():
        export_gguf(folder, file, "f16", name="tiny")
    return file
