"""Personal data: what is found, what only looks like it, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from potstill.curation.personal_data import PersonalData, findings_in, redacted
from potstill.rows import Message, Row

Make = Callable[..., Row]


@pytest.mark.parametrize(
    ("kind", "piece"),
    [
        ("email", "jane.doe+shop@mail.example.co.uk"),
        ("phone", "+44 20 7946 0958"),
        ("phone", "(212) 664-7665"),
        ("phone", "212-664-7665"),
        ("phone", "01 42 68 53 00"),
        ("card", "4111 1111 1111 1111"),
        ("card", "5500-0055-5555-5559"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("iban", "GB29NWBK60161331926819"),
        ("identity_number", "536-90-4399"),
        ("identity_number", "RSSMRA85T10A562S"),
        ("identity_number", "12345678Z"),
        ("ip_address", "8.8.8.8"),
        ("ip_address", "2001:4860:4860::8888"),
        ("secret", "sk-proj-abcdefghijklmnopqrst1234"),
        ("secret", "AKIAIOSFODNN7EXAMPLE"),
        ("secret", "AKIAIOSFODNNQEXAMPLE"),
        ("secret", "ghp_0123456789abcdefghijABCDEFGHIJ012345"),
        ("secret", "api_key = 'f3c9a1b27e5d4680aa17"),
    ],
)
def test_what_is_personal_is_found_where_it_stands(kind: str, piece: str) -> None:
    text = f"Please note: {piece}, and thank you."
    assert [(found.kind, text[found.start : found.end]) for found in findings_in(text)] == [(kind, piece)]


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112 fails the sum of a card",
        "DE89 3704 0044 0532 0130 01 fails the sum of an account",
        "no number of that kind begins so: 000-12-3456, 666-12-3456",
        "12345678A has the wrong letter",
        "at home: 192.168.0.1, 127.0.0.1 and ::1; at 12:30:45; version 1.2.3.4.5; 300.1.1.1",
        "16 - 3 - 4 = 9, then 100 - 20 - 30 - 40 = 10 and 1 2 3 4 5 6 7 8 9 10",
        "on 2019-10-12 or 10/12/2019 there were 1,000,000 people and order 1234567890",
        "ISBN 978-3-16-148410-0, order 12345-67890, 3.14159265358979",
        "me @home, a@b, user@localhost, x = y@z",
        "the secret: a very_long_word_without_a_number_in_it, https://example.org/some/very/long/path/to/a/page",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert findings_in(text) == []


def test_it_is_kept_and_counted_unless_the_job_says_otherwise(generated: Make) -> None:
    rows = [generated("Who?", "Ask a@b.org or c@d.org."), generated("Call 212-664-7665", "Done."), generated("Who?", "Me.")]
    keep, drop = PersonalData("keep"), PersonalData("drop")
    assert [keep.reject(row) for row in rows] == [None, None, None]
    assert keep.counts == {"email": 1, "phone": 1}
    assert [drop.reject(row) for row in rows] == ["it holds personal data: email", "it holds personal data: phone", None]
    assert [keep.treated(row) for row in rows] == rows


def test_placeholders_stand_in_its_place_in_every_turn_and_in_the_gold_answer() -> None:
    turns = (Message("user", "I am a@b.org, 212-664-7665."), Message("assistant", "Hello a@b.org!"))
    row = redacted(Row("1", turns, ["Hello a@b.org.", "Hello."]))
    assert [message.content for message in row.messages] == ["I am [EMAIL], [PHONE].", "Hello [EMAIL]!"]
    assert row.reference == ["Hello [EMAIL].", "Hello."]
    assert PersonalData("redact").treated(Row("1", turns)).messages == row.messages
