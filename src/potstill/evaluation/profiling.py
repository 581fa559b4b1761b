"""What running a model costs: resident memory, latency, throughput, money.

Memory is measured in a process that has done nothing else: from after the engine's library is imported and before the model is
loaded, to the peak while it answers. Files that are mapped into memory count as soon as their pages are touched.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from potstill.catalog.model import Price

_SAMPLING_INTERVAL_S = 0.02
_CLEAR_PEAK = "5"  # proc(5): writing 5 to clear_refs sets the peak resident size (VmHWM) back to the current one

VCPU_HOUR_USD = 0.0425
VCPU_HOUR_SOURCE = "on-demand c5.2xlarge in us-east-1, $0.34 an hour for 8 virtual CPUs (Amazon EC2 documentation)"


class MemoryMeter:
    """Growth of this process's resident memory, in bytes, from entering the context to its peak within.

    Linux keeps the exact peak and lets a process reset it; elsewhere, and where /proc does not allow it, the largest of the
    samples that a thread takes every 20 ms counts.
    """

    def __enter__(self) -> Self:
        self._process = psutil.Process()
        self._kernel_peak = _reset_kernel_peak()
        self._baseline = self._sampled_peak = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLING_INTERVAL_S):
            self._sampled_peak = max(self._sampled_peak, self._process.memory_info().rss)

    @property
    def growth_bytes(self) -> int:
        """The peak so far above the baseline."""
        peak = max(self._sampled_peak, self._process.memory_info().rss)
        if self._kernel_peak:
            peak = max(peak, _read_kernel_peak())
        return peak - self._baseline


def _reset_kernel_peak() -> bool:
    """Whether the kernel's own record of this process's peak now starts at its present size."""
    try:
        Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)
        return _read_kernel_peak() <= psutil.Process().memory_info().rss + 2**20
    except (OSError, StopIteration):
        return False


def _read_kernel_peak() -> int:
    """VmHWM in bytes. Unlike ru_maxrss it does not remember the parent from which this process was forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds a response, one at a time."""

    mean: float
    p50: float
    p95: float


def summarise_latency(latencies_s: Sequence[float]) -> Latency | None:
    """Mean and percentiles (linear between ranks); None without a response."""
    if not latencies_s:
        return None
    import numpy as np

    p50, p95 = np.percentile(latencies_s, [50, 95])
    return Latency(float(np.mean(latencies_s)), float(p50), float(p95))


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars per thousand requests, and what that figure rests on."""

    per_1k_requests: float
    assumption: str


def endpoint_cost(price: Price | None, prompt_tokens: int | None, completion_tokens: int | None, responses: int) -> Cost | None:
    """Price times measured tokens; None where the price or the tokens are not known."""
    if price is None or prompt_tokens is None or completion_tokens is None or not responses:
        return None
    dollars = (price.input * prompt_tokens + price.output * completion_tokens) / 1e6 / responses * 1000
    dated = f" as of {price.date}" if price.date else ""
    return Cost(dollars, f"tokens as measured, at ${price.input:g} in and ${price.output:g} out a million{dated}")


def machine_cost(throughput_rps: float | None, cpus: int) -> Cost | None:
    """Rent of a machine like this one, kept busy at the measured throughput; None where that was not measured."""
    if not throughput_rps:
        return None
    dollars = VCPU_HOUR_USD * cpus / 3600 / throughput_rps * 1000
    return Cost(
        dollars,
        f"{cpus} virtual CPUs at ${VCPU_HOUR_USD:g} an hour each, busy at the measured throughput; price: {VCPU_HOUR_SOURCE}",
    )
