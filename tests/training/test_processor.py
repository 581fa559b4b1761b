"""Memory that is freed while training stays at hand, and goes when training ends."""

from __future__ import annotations

import sys

import psutil
import pytest
import torch

from potstill.training.processor import freed_memory_kept

BLOCK = 256 * 2**20  # bytes


def grown_after_a_block(before: int) -> int:
    block = torch.ones(BLOCK // 4)
    del block
    return int(psutil.Process().memory_info().rss) - before


@pytest.mark.skipif(sys.platform != "linux", reason="only the GNU C library has these settings")
def test_freed_memory_stays_while_inside_and_goes_after() -> None:
    before = psutil.Process().memory_info().rss
    assert grown_after_a_block(before) < BLOCK / 4
    with freed_memory_kept():
        assert grown_after_a_block(before) > 3 * BLOCK / 4
    assert psutil.Process().memory_info().rss - before < BLOCK / 4
    assert grown_after_a_block(before) < BLOCK / 4
