"""Memory that is freed while training stays at hand, and goes when training ends.

Each look is taken by a process of its own, python test_processor.py NAME: another test's memory, freed but in pieces, would be
taken up first, and stay.
"""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest
import torch

from potstill.training.processor import freed_memory_kept, give_back_memory

BLOCK = 256 * 2**20  # bytes


def grown_after_a_block(before: int) -> int:
    block = torch.ones(BLOCK // 4)
    del block
    return int(psutil.Process().memory_info().rss) - before


def freed_memory_stays_while_inside_and_goes_after() -> None:
    before = psutil.Process().memory_info().rss
    assert grown_after_a_block(before) < BLOCK / 4
    with freed_memory_kept():
        assert grown_after_a_block(before) > 3 * BLOCK / 4
    assert psutil.Process().memory_info().rss - before < BLOCK / 4
    assert grown_after_a_block(before) < BLOCK / 4


def what_nobody_holds_goes_back_to_the_system() -> None:
    before = psutil.Process().memory_info().rss
    with_itself: list[object] = [[torch.ones(2**14) for _ in range(BLOCK // 2**16)]]
    with_itself.append(with_itself)  # held by nobody but itself
    del with_itself
    give_back_memory()
    assert psutil.Process().memory_info().rss - before < BLOCK / 4


LOOKS = {
    look.__name__: look for look in (freed_memory_stays_while_inside_and_goes_after, what_nobody_holds_goes_back_to_the_system)
}


@pytest.mark.skipif(sys.platform != "linux", reason="only the GNU C library has these settings")
@pytest.mark.parametrize("name", LOOKS)
def test_memory(name: str) -> None:
    result = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


if __name__ == "__main__":
    LOOKS[sys.argv[1]]()
