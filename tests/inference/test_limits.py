"""What headers say of an endpoint's limits, in the forms that vendors use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from multidict import CIMultiDict

from potstill.inference.limits import read_limits, retry_after_s
from potstill.inference.protocol import RateLimits


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("1d", 86400), ("2m59.56s", 179.56), ("250us", 0.00025),
        ("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", None), ("", None), ("5 apples", None), ("nan", None), ("inf", None),
    ],
)
def test_a_reset_may_be_a_duration_or_a_number(text: str, seconds: float | None) -> None:
    headers = CIMultiDict({"X-RateLimit-Remaining-Requests": "59", "X-RateLimit-Reset-Requests": text})
    limits = read_limits(headers)
    assert limits is not None
    assert limits.remaining_requests == 59
    assert limits.reset_requests_s == (seconds if seconds is None else pytest.approx(seconds))
    assert limits.remaining_tokens is None


def test_anthropics_resets_are_times() -> None:
    headers = {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": soon(30).isoformat().replace("+00:00", "Z"),
        "anthropic-ratelimit-tokens-remaining": "1200",
        "anthropic-ratelimit-tokens-reset": (soon(-5)).isoformat(),
    }
    limits = read_limits(CIMultiDict(headers))
    assert limits is not None
    assert (limits.remaining_requests, limits.remaining_tokens, limits.reset_tokens_s) == (0, 1200, 0)
    assert limits.reset_requests_s == pytest.approx(30, abs=3)


def test_no_limits_are_none() -> None:
    assert read_limits(CIMultiDict({"Content-Type": "application/json"})) is None
    assert read_limits(CIMultiDict({"x-ratelimit-remaining-tokens": "many"})) == RateLimits()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3),
        ({"retry-after": "1.5"}, 1.5),
        ({"Retry-After": "-1"}, 0),
        ({"Retry-After": "3", "retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "3", "retry-after-ms": "?"}, 3),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "later"}, None),
        ({"Retry-After": format_datetime(soon(-60))}, 0),
    ],
)
def test_when_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(CIMultiDict(headers)) == seconds


def test_a_date_to_come_back_is_seconds_from_now() -> None:
    assert retry_after_s({"Retry-After": format_datetime(soon(30))}) == pytest.approx(30, abs=3)
