"""The head's matrix products: float32 in, float32 out, never rounded on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch

# Of a head at a time, on x86 without AVX-512. There, on two cores of an EPYC, 480 positions by 49,152 rows ran at 80 thousand
# million operations a second when MKL was given all rows, and at 130 in pieces of 512. On other processors it was not tried.
_ROWS_OF_AVX2 = 512


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
            states = hidden.float()
            rows = _ROWS_OF_AVX2 if hidden.device.type == "cpu" and _has_avx2_alone() else max(len(self.weight), 1)
            for start in range(0, len(self.weight), rows):
                torch.mm(states, self.weight[start : start + rows].T, out=out[:, start : start + rows])
        else:
            torch.mm(hidden.to(self.weight.dtype), self.weight.T, out_dtype=torch.float32, out=out)
        return out if self.bias is None else out.add_(self.bias)


@cache
def _has_avx2_alone() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx2") and not capabilities.get("avx512_f"))


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
