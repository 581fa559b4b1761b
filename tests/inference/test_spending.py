"""What the records of a journal add up to."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from potstill.catalog import Price
from potstill.inference.journal import Journal
from potstill.inference.protocol import RawReply
from potstill.inference.spending import Cost, dollars, read_spending, used_tokens

PRICE = Price(0.28, 0.42)
KEY, OTHER = "0" * 32, "1" * 32
WORST, ACTUAL = Cost.of(100, 50, PRICE), Cost.of(20, 5, PRICE)


def reply(status: int = 200) -> RawReply:
    return RawReply(status, b"{}", 0.1)


def totals(folder: Path) -> tuple[int, int]:
    """Tokens and picodollars of a journal read anew."""
    return read_spending(folder).total.at(None)


def test_dollars_are_counted_without_rounding() -> None:
    # 0.28 dollars a million tokens are 280,000 picodollars a token.
    assert Cost.of(1, 0, PRICE).picodollars == 280_000
    assert Cost.of(0, 3, PRICE).picodollars == 3 * 420_000
    assert Cost.of(10**6, 0, PRICE).usd == 0.28
    assert Cost.from_dict(orjson.loads(orjson.dumps(WORST.as_dict()))) == WORST
    assert Cost.from_dict(Cost.of(7, 2, None).as_dict()) == Cost(7, 2, None)


def test_an_outcome_replaces_what_was_held_back(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append_intent(KEY, {}, price=WORST.as_dict())
        assert journal.spending.total.at(None) == (150, WORST.picodollars)
        journal.append_outcome(KEY, reply(), price=ACTUAL.as_dict())
        assert journal.spending.total.at(None) == (25, ACTUAL.picodollars)
        assert journal.spending.known == journal.spending.total
    assert totals(tmp_path) == (25, ACTUAL.picodollars)


def test_what_has_no_outcome_counts_in_full(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append_intent(KEY, {}, price=WORST.as_dict())  # the process died here
    with Journal(tmp_path) as journal:
        journal.append_intent(KEY, {}, price=WORST.as_dict())
        journal.append_failure(KEY, "the connection broke")
        journal.append_intent(KEY, {}, price=WORST.as_dict())
        journal.append_outcome(KEY, reply(), price=ACTUAL.as_dict())
        journal.append_intent(OTHER, {}, price=WORST.as_dict())
        journal.append_failure(OTHER, "it never went out", price=Cost().as_dict())
        assert journal.spending.total.tokens == 2 * 150 + 25
        assert journal.spending.known.tokens == 25
    assert totals(tmp_path) == (325, 2 * (WORST.picodollars or 0) + (ACTUAL.picodollars or 0))


def test_a_torn_tail_is_no_spend_and_records_without_a_price_are_none(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append_intent(KEY, {}, price=WORST.as_dict())
        journal.append_intent(OTHER, {})
        journal.append_outcome(OTHER, reply())
    path = next(tmp_path.glob("*.seg"))
    path.write_bytes(path.read_bytes()[:-3])
    assert totals(tmp_path) == (150, WORST.picodollars)
    assert totals(tmp_path / "nowhere") == (0, 0)


def test_what_was_asked_before_its_price_was_known_is_worth_todays(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append_intent(KEY, {}, price=Cost.of(100, 50, None).as_dict())
        journal.append_outcome(KEY, reply(), price=Cost.of(20, 5, None).as_dict())
        journal.append_intent(OTHER, {}, price=WORST.as_dict())
    spent = read_spending(tmp_path).total
    assert spent.at(None) == (175, WORST.picodollars)
    assert spent.at(PRICE) == (175, (WORST.picodollars or 0) + (ACTUAL.picodollars or 0))


def test_records_that_were_taken_out_leave_their_price(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append_intent(KEY, {}, price=WORST.as_dict())
        journal.spending.note({"kind": "spent", "price": ACTUAL.as_dict()})
        assert journal.spending.total.tokens == 175


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}, (7, 2)),
        ({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 59}, (7, 52)),  # 50 of hidden reasoning
        ({"input_tokens": 7, "output_tokens": 2, "cache_read_input_tokens": 100}, (107, 2)),
        ({"prompt_tokens": 7}, None),
        ({"prompt_tokens": "7", "completion_tokens": None}, None),
        (None, None),
    ],
)
def test_tokens_as_replies_count_them(usage: object, tokens: tuple[int, int] | None) -> None:
    assert used_tokens(orjson.dumps({"usage": usage})) == tokens


def test_bodies_that_count_nothing() -> None:
    assert [used_tokens(body) for body in (b"", b"<html>", b"[]", b'{"choices": []}')] == [None] * 4


@pytest.mark.parametrize(
    ("usd", "shown"),
    [(0, "$0.00"), (12.3, "$12.30"), (1234.5, "$1,234.50"), (0.123, "$0.12"), (0.0042, "$0.0042"), (2e-7, "$0.00000020")],
)
def test_money_is_told_with_the_digits_that_it_needs(usd: float, shown: str) -> None:
    assert dollars(usd) == shown
