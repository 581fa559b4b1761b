"""How attention is computed: by a kernel that never holds its probabilities, or step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_SHORT = 256  # tokens


def attend_to_short_texts(network: Any, longest: int) -> None:
    """Where there is no accelerator, have a network compute attention step by step if `longest`, in tokens, is short.

    torch's kernel for processors is made for long texts. Measured on two cores (8 layers of SmolLM2, 8 texts a step), forward
    and backward through the layers: 0.81 of its time at 96 tokens, 0.87 at 256, 0.90 at 384, where the probabilities begin to
    count in memory.
    """
    if not torch.accelerator.is_available() and longest <= _SHORT:
        network.set_attn_implementation("eager")


@contextmanager
def attention_is_told(network: Any) -> Iterator[None]:
    """While inside, attention is computed step by step, and its layers give (output, probabilities of (B, heads, L, L)).

    The faster kernels never hold the probabilities.
    """
    before = network.config._attn_implementation
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(before)
