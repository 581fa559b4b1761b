"""Attention that tells its probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
