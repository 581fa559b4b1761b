"""Each run meets other numbers; a failure names the seed that gives them again."""

from __future__ import annotations

import secrets

import pytest
import torch


@pytest.fixture(autouse=True)
def _fresh_numbers() -> None:
    seed = secrets.randbelow(2**31)
    print(f"torch.manual_seed({seed})")  # noqa: T201 (shown where the test fails)
    torch.manual_seed(seed)
