"""What the headers of a reply say of an endpoint's limits: when to come back, and how much is left until then.

Forms: Retry-After is seconds or a date (RFC 9110, section 10.2.3), retry-after-ms the milliseconds that some vendors send.
OpenAI's `x-ratelimit-reset-*` are durations ("1s", "6m0s", "20ms"; platform.openai.com/docs/guides/rate-limits), as its many
imitators send them, or plain seconds; Anthropic's `anthropic-ratelimit-*-reset` are RFC 3339 times
(docs.anthropic.com/en/api/rate-limits). A value that cannot be read is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from potstill.inference.protocol import RateLimits

_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d+)?)(d|h|ms|m|s|us|µs|ns)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_NAMES = tuple(
    tuple(form.format(what) for what in ("requests", "tokens") for form in forms)
    for forms in (
        ("x-ratelimit-remaining-{}", "x-ratelimit-reset-{}"),
        ("anthropic-ratelimit-{}-remaining", "anthropic-ratelimit-{}-reset"),
    )
)


def read_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """The limits that a reply tells, None where it tells none. `headers` is looked up without regard to case."""
    for remaining_requests, reset_requests, remaining_tokens, reset_tokens in _NAMES:
        requests, tokens = headers.get(remaining_requests), headers.get(remaining_tokens)
        if requests is not None or tokens is not None:
            return RateLimits(
                remaining_requests=_number(requests), reset_requests_s=_read(headers.get(reset_requests), _reset_s),
                remaining_tokens=_number(tokens), reset_tokens_s=_read(headers.get(reset_tokens), _reset_s),
            )
    return None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, where the endpoint says so."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = headers.get("Retry-After")
    seconds = _number(value)
    if seconds is not None:
        return max(0.0, seconds)
    return _read(value, lambda text: _until(parsedate_to_datetime(text)))


def _reset_s(text: str) -> float:
    """Seconds from now, of a duration, a number of seconds, or an RFC 3339 time."""
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
    seconds = _number(text)
    return _until(datetime.fromisoformat(text)) if seconds is None else max(0.0, seconds)


def _until(time: datetime) -> float:
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return max(0.0, (time - datetime.now(UTC)).total_seconds())


def _number(text: str | None) -> float | None:
    return _read(text, float)


def _read(text: str | None, parse: Callable[[str], float]) -> float | None:
    try:
        value = None if text is None else parse(text.strip())
    except (ValueError, OverflowError):
        return None
    return value if value is not None and value < float("inf") else None
