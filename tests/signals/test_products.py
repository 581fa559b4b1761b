"""The head's products at their real width, against float64, whichever library computes them."""

from __future__ import annotations

import pytest
import torch

from potstill.signals import products
from potstill.signals.products import Head, multiplied_by_the_faster_library
from training.losses.reference import relative_error


@pytest.mark.parametrize("in_pieces", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_product_of_the_head_is_rounded(dtype: torch.dtype, in_pieces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 4: rounding the inputs of one product to bfloat16 would show as an error of 2e-3."""
    monkeypatch.setattr(products, "_has_avx2_alone", lambda: in_pieces)
    hidden, weight, bias = torch.randn(40, 576).to(dtype), torch.randn(3_100, 576).to(dtype), torch.randn(3_100).to(dtype)
    with multiplied_by_the_faster_library():
        logits = Head.of(weight, bias, 3_000).logits(hidden, torch.empty(50, 3_000))
        of_hidden, of_weight = logits @ weight[:3_000].float(), logits.T @ hidden.float()
    wide = hidden.double() @ weight[:3_000].double().T + bias[:3_000].double()
    assert relative_error(logits, wide) < 1e-6
    assert relative_error(of_hidden, logits.double() @ weight[:3_000].double()) < 1e-6
    assert relative_error(of_weight, logits.double().T @ hidden.double()) < 1e-6


def test_the_choice_of_the_library_ends_with_the_products() -> None:
    before, overall = torch.backends.mkldnn.matmul.fp32_precision, torch.get_float32_matmul_precision()
    with pytest.raises(ZeroDivisionError), multiplied_by_the_faster_library():
        _ = 1 / 0
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert torch.get_float32_matmul_precision() == overall
