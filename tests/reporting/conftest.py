"""The runs that these tests report on."""

from __future__ import annotations

import pytest

from reporting.synthetic_run import Run, make_run


@pytest.fixture(scope="session")
def conversation() -> Run:
    return make_run()


@pytest.fixture(scope="session")
def classification() -> Run:
    return make_run("classification", ("teacher", "baseline", "distilled", "weights"), reference="gold")
