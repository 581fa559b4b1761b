"""What several looks at a job need: an endpoint."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loopback import LoopbackEndpoint, Messages, serve_in_thread


def answer(messages: Messages) -> str:
    return "Yes."


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackEndpoint]:
    with serve_in_thread(answer) as running:
        yield running
