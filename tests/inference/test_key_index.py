"""The index finds every key, the newest place of each, in at most 32 bytes a key."""

from __future__ import annotations

import pytest

from potstill.inference.key_index import KeyIndex
from potstill.rows import content_hash


def test_every_key_is_found_and_no_other() -> None:
    index, keys = KeyIndex(), [content_hash(number) for number in range(20_000)]
    for number, key in enumerate(keys):
        index.put(key, number + 1)
    assert len(index) == len(keys)
    assert [index.get(key) for key in keys] == list(range(1, 20_001))
    assert all(index.get(content_hash(number)) is None for number in range(20_000, 25_000))
    assert index.places() == set(range(1, 20_001))


def test_a_new_place_stands_in_for_the_old_one() -> None:
    index = KeyIndex()
    for place in (1, 2, 2**64 - 1):
        index.put(content_hash("a"), place)
    assert (len(index), index.get(content_hash("a"))) == (1, 2**64 - 1)


def test_keys_that_meet_at_the_end_of_the_table_are_all_found() -> None:
    index, keys = KeyIndex(), [f"{2**64 - 1 - number:016x}" + 16 * "0" for number in range(40)]
    for number, key in enumerate([*keys, 32 * "0"]):
        index.put(key, number + 1)
    assert [index.get(key) for key in [*keys, 32 * "0"]] == list(range(1, 42))


@pytest.mark.parametrize("count", [1_000, 1_153, 20_000, 60_000])
def test_it_takes_at_most_32_bytes_a_key_once_it_has_grown(count: int) -> None:
    index = KeyIndex()
    for number in range(count):
        index.put(content_hash(number), 1)
    assert index.bytes <= 32 * max(count, 768)
