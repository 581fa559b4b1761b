"""What the tests of inference share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from potstill.inference import retry
from potstill.inference.protocol import Request, Sampling
from potstill.rows import Message


@pytest.fixture
def ask_for() -> Callable[..., Request]:
    """A request with one user message."""

    def make(content: str, *, sample: int = 0, **sampling: object) -> Request:
        return Request((Message("user", content),), Sampling(**sampling), sample)  # type: ignore[arg-type]

    return make


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come after milliseconds, so that tests are quick."""
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.002)


@pytest.fixture(params=["openai", "anthropic"])
def vendor(request: pytest.FixtureRequest) -> str:
    if request.param == "anthropic":
        pytest.importorskip("anthropic")
    name: str = request.param
    return name
