"""Numbers as a person reads them."""

from __future__ import annotations

import pytest

from potstill.reporting import format as fmt


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.9271, "93 %"),
        (0.042, "4.2 %"),
        (0.00423, "0.42 %"),
        (1.04, "104 %"),
        (0.99, "99 %"),
        (0.9967, "99.7 %"),
        (0.99996, "99.9 %"),  # rounded to 100 % it would claim what is not so
        (1.0, "100 %"),
        (12.345, "1,234 %"),
        (0.0, "0 %"),
        (-0.35, "−35 %"),
    ],
)
def test_percent(fraction: float, text: str) -> None:
    assert fmt.percent(fraction) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (8_192, "8,192"),
        (134_515_008, "135 M"),
        (56_629_440, "57 M"),
        (1_235_814_400, "1.24 B"),
        (9.996e8, "1.00 B"),  # not 1000 M
    ],
)
def test_count(value: float | None, text: str) -> None:
    assert fmt.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (93_400_000, "93 MB"), (322_000_000, "322 MB"), (1_424_000_000, "1.42 GB"), (512, "512 B")]
)
def test_size(value: float | None, text: str) -> None:
    assert fmt.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.312, "0.31 s"), (0.0871, "87 ms"), (0.0999, "0.10 s"), (0.00042, "0.42 ms"), (75.4, "75 s")],
)
def test_seconds(value: float | None, text: str) -> None:
    assert fmt.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.00245, "$0.0024"), (0.31, "$0.31"), (14.2, "$14"), (1250.0, "$1,250"), (0.0, "$0")]
)
def test_dollars(value: float | None, text: str) -> None:
    assert fmt.dollars(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.2134, "+0.21"), (-0.0341, "−0.034"), (0.0001, "0.000"), (-0.0001, "0.000"), (0.0, "0.000")]
)
def test_signed(value: float, text: str) -> None:
    assert fmt.signed(value) == text


@pytest.mark.parametrize(
    ("p", "text"), [(0.0001, "p < 0.001"), (0.00099, "p < 0.001"), (0.0342, "p = 0.034"), (0.9, "p = 0.90"), (1.0, "p = 1.0")]
)
def test_p_value(p: float, text: str) -> None:
    assert fmt.p_value(p) == text


def test_a_narrow_interval_keeps_the_digits_that_tell_its_ends_apart() -> None:
    assert fmt.figure({"value": 0.41234, "ci95": [0.391, 0.4378]}) == "0.412 [0.39, 0.44]"
    assert fmt.figure({"value": 0.41234, "ci95": [0.4101, 0.4149]}) == "0.412 [0.410, 0.415]"
    assert fmt.figure(None) == "–"


def test_typesetting_keeps_numbers_with_their_units() -> None:
    assert fmt.typeset("93 % of the teacher's, p < 0.001, 3.1 × in 87 ms") == (
        "93\u00a0% of the teacher’s, p\u00a0<\u00a00.001, 3.1\u00a0× in 87\u00a0ms"
    )
