"""While many requests are in flight the collector comes more rarely, and afterwards as before."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from potstill.inference.client import run_all
from potstill.inference.garbage import OBJECTS, collected_rarely


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


async def test_only_while_there_is_work_and_until_the_last_is_done() -> None:
    seen: list[int] = []

    async def work(seconds: float) -> None:
        seen.append(gc.get_threshold()[0])
        await asyncio.sleep(seconds)
        seen.append(gc.get_threshold()[0])

    await asyncio.gather(run_all([work(0.01)]), run_all([work(0.05)]))
    assert seen == [OBJECTS] * 4
    assert gc.get_threshold() == (700, 10, 10)


async def test_a_failure_sets_it_back_too() -> None:
    async def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        await run_all([fail()])
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("first", [0, 50_000])
def test_a_collector_that_is_off_or_comes_more_rarely_is_left_alone(first: int) -> None:
    gc.set_threshold(first, 10, 10)
    with collected_rarely():
        assert gc.get_threshold()[0] == first
    assert gc.get_threshold()[0] == first
