"""Memory, latency and cost."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from potstill.catalog.model import Price
from potstill.evaluation.profiling import MemoryMeter, endpoint_cost, machine_cost, summarise_latency

MIB = 2**20


def test_memory_that_was_freed_again_counts_at_its_peak() -> None:
    with MemoryMeter() as memory:
        block = bytearray(b"x") * (64 * MIB)
        del block
        assert 60 * MIB < memory.growth_bytes < 90 * MIB


def test_memory_of_before_does_not_count() -> None:
    block = bytearray(b"x") * (64 * MIB)
    del block
    with MemoryMeter() as memory:
        assert memory.growth_bytes < 8 * MIB


def test_pages_of_a_mapped_file_count(tmp_path: Path) -> None:
    """llama.cpp maps its model files instead of reading them."""
    path = tmp_path / "weights"
    path.write_bytes(b"x" * (32 * MIB))
    with path.open("rb") as file, MemoryMeter() as memory, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == ord("x") * 32 * MIB // mmap.PAGESIZE
        assert memory.growth_bytes > 30 * MIB


def test_latency_percentiles() -> None:
    """Of 0.01 to 1.00 s in hundredths: the 95th percentile lies 0.05 of the way from the 95th value to the 96th."""
    latency = summarise_latency([n / 100 for n in range(1, 101)])
    assert latency is not None
    assert (latency.mean, latency.p50, latency.p95) == pytest.approx((0.505, 0.505, 0.9505))
    assert summarise_latency([]) is None


def test_an_endpoint_costs_its_price_times_the_tokens() -> None:
    """10 responses of 100 + 20 tokens at $2 and $10 a million: $0.0004 each."""
    cost = endpoint_cost(Price(2.0, 10.0, "2026-01-31"), 1000, 200, 10)
    assert cost is not None
    assert cost.per_1k_requests == pytest.approx(0.4)
    assert "2026-01-31" in cost.assumption


@pytest.mark.parametrize(("price", "prompt"), [(None, 1000), (Price(2.0, 10.0), None)])
def test_an_endpoint_without_price_or_token_counts_has_no_cost(price: Price | None, prompt: int | None) -> None:
    assert endpoint_cost(price, prompt, 200, 10) is None


def test_a_local_model_costs_its_machine() -> None:
    """Two virtual CPUs at $0.0425 an hour are $0.085; 1,000 requests at 10 a second take 100 s of it."""
    cost = machine_cost(10.0, 2)
    assert cost is not None
    assert cost.per_1k_requests == pytest.approx(0.085 / 36)
    assert machine_cost(None, 2) is None
