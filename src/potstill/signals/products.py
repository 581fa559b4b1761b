"""The head's matrix products: float32 in, float32 out, never rounded on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True, slots=True)
class Head:
    """The rows of an output embedding that are real tokens: weight (V, H) and bias (V,) or None."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None, vocabulary: int) -> Head:
        """Of one in half precision a float32 copy is made, but where the device multiplies halves to float32 sums."""
        weight = weight[:vocabulary]
        if not weight.is_cuda:
            weight = weight.float()
        return cls(weight, None if bias is None else bias[:vocabulary].float())

    def logits(self, hidden: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
        """(C, V) float32 of hidden states (C, H), in the first rows of the buffer."""
        out = buffer[: len(hidden)]
        if self.weight.dtype == torch.float32:
            hidden, rows = hidden.float(), len(self.weight) if hidden.is_cuda else _rows_at_once()
            for start in range(0, len(self.weight), max(rows, 1)):
                torch.mm(hidden, self.weight[start : start + rows].T, out=out[:, start : start + rows])
        else:
            torch.mm(hidden.to(self.weight.dtype), self.weight.T, out_dtype=torch.float32, out=out)
        return out if self.bias is None else out.add_(self.bias)


@cache
def _rows_at_once() -> int:
    """How many rows of a head to multiply by at a time on this processor.

    Measured on two cores of an EPYC with AVX2: 480 positions by 49,152 rows ran at 80 thousand million operations a second when
    MKL was given all of them, and at 130 in pieces of 512. Processors with AVX-512 showed no such difference.
    """
    return 2**31 if torch.cpu.get_capabilities().get("avx512_f") else 512


@contextmanager
def multiplied_by_the_faster_library() -> Iterator[None]:
    """While inside, float32 products on a processor go to oneDNN where it is known to compute them in float32.

    torch asks MKL for them, which on AMD's processors with AVX-512 takes twice as long. torch leaves the choice to nobody, but
    goes to oneDNN where it is allowed to round to bfloat16; and oneDNN does so only with Intel's AMX units.
    """
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    if _onednn_rounds_nothing():
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@cache
def _onednn_rounds_nothing() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(torch.backends.mkldnn.is_available() and capabilities.get("avx512_f") and not capabilities.get("amx_bf16"))
