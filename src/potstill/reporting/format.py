"""Numbers as a person reads them: two or three significant digits, a unit after a space, a dash for what was not measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

DASH = "–"
MINUS = "−"
TIMES = "×"
_NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=(?:%|×|s|ms|[kMG]?B|[kMBT])(?!\w))|(?<=\bp) (?=[<=])|(?<=\bp [<=]) ")


def significant(value: float, digits: int = 2) -> str:
    """A number with `digits` significant digits and no exponent; whole numbers keep all their digits, in groups of three."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = int(f"{rounded:e}".partition("e")[2])
    if exponent >= digits - 1:
        return _sign(f"{value:,.0f}")
    return _sign(f"{rounded:.{digits - 1 - exponent}f}")


def _sign(text: str) -> str:
    return text.replace("-", MINUS)


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    """The value in the largest unit that it reaches: three significant digits, from ten on no decimals."""
    unit_size, unit = next((entry for entry in units if abs(value) >= entry[0] * 0.9995), units[-1])
    scaled = value / unit_size
    return f"{significant(scaled, 3 if scaled < 9.995 else 2)} {unit}"


def count(value: float | None) -> str:
    """135 M, 57 M, 1.24 B; below 100,000 the number itself: 8,192."""
    if value is None:
        return DASH
    if abs(value) < 1e5:
        return _sign(f"{value:,.0f}")
    return _scaled(value, ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")))


def counted(value: int, noun: str) -> str:
    """1 row, 2 rows."""
    return f"{count(value)} {noun}" + ("" if value == 1 else "s")


def size(value_bytes: float | None) -> str:
    """Decimal units, as disks and hubs have them: 322 MB, 93 MB, 1.42 GB."""
    if value_bytes is None:
        return DASH
    return _scaled(value_bytes, ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")))


def seconds(value_s: float | None) -> str:
    """0.31 s; below a tenth of a second 87 ms."""
    if value_s is None:
        return DASH
    return f"{significant(value_s)} s" if value_s == 0 or abs(value_s) >= 0.0995 else f"{significant(value_s * 1000)} ms"


def dollars(value: float | None) -> str:
    """$0.0021, $14, $1,250."""
    return DASH if value is None else f"${significant(value) if value < 10 else f'{value:,.0f}'}"


def rate(value_per_s: float | None, concurrency: int | None = None) -> str:
    """8.1/s (4 at once)."""
    if value_per_s is None:
        return DASH
    return f"{significant(value_per_s)}/s" + (f" ({concurrency} at once)" if concurrency else "")


def factor(value: float) -> str:
    """3.1 ×."""
    return f"{significant(value)} {TIMES}"


def percent(fraction: float) -> str:
    """93 %, 4.2 %, 0.42 %; 99.7 % rather than a 100 % that it is not."""
    value = fraction * 100
    if 99 < abs(value) < 100:
        return _sign(f"{max(-99.9, min(99.9, value)):.1f} %")
    return f"{significant(value)} %"


def metric(value: float | None) -> str:
    """A score: three decimals."""
    return DASH if value is None else _sign(f"{value:.3f}")


def signed(value: float) -> str:
    """A difference of scores with its sign: +0.21, −0.034."""
    text = significant(value) if abs(value) >= 0.0005 else "0.000"
    return text if text.startswith((MINUS, "0.000")) else f"+{text}"


def bounds(ci95: Sequence[float]) -> tuple[str, str]:
    """The ends of an interval: two decimals, three where it is narrower than 0.02."""
    decimals = 2 if ci95[1] - ci95[0] >= 0.02 else 3
    low, high = (_sign(f"{end:.{decimals}f}") for end in ci95)
    return low, high


def interval(ci95: Sequence[float]) -> str:
    """[0.39, 0.44]."""
    return "[{}, {}]".format(*bounds(ci95))


def figure(entry: Mapping[str, Any] | None) -> str:
    """A metric of report.json: 0.412 [0.39, 0.44]."""
    return DASH if entry is None else f"{metric(entry['value'])} {interval(entry['ci95'])}"


def p_value(p: float) -> str:
    """p = 0.034; p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {significant(p)}"


def typeset(text: str) -> str:
    """Our own words as a printer would set them: numbers stay with their units, apostrophes are curved."""
    return _NUMBER_AND_UNIT.sub("\N{NO-BREAK SPACE}", text).replace("'", "’")
