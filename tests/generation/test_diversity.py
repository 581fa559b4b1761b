"""How near texts are to each other."""

from __future__ import annotations

import pytest

from potstill.generation.diversity import Diversity, shingles


def test_the_similarity_is_the_share_of_word_triples_in_common() -> None:
    there = Diversity([("a", "one two three four five")])
    assert there.nearest("one two three four five") == (1.0, "a")
    # one-two-three and two-three-four of four triples in all
    assert there.nearest("One two, three four; six!") == (pytest.approx(2 / 4), "a")
    assert there.nearest("six seven eight nine") == (0.0, None)


def test_the_nearest_is_named_and_of_equals_the_first() -> None:
    there = Diversity([("far", "a b c d e f"), ("near", "a b c d x y"), ("same", "a b c d x y")])
    assert there.nearest("a b c d x z") == (pytest.approx(3 / 5), "near")


def test_a_text_counts_once_it_is_added() -> None:
    there = Diversity()
    assert there.nearest("the bell rings") == (0.0, None)
    there.add("bell", "the bell rings")
    assert there.nearest("The bell rings.") == (1.0, "bell")


def test_other_numbers_make_no_other_text() -> None:
    assert shingles("Ann has 12 apples and 3.50 pounds") == shingles("ann has 7 apples and 1,000 pounds")
    assert shingles("Ann has 12 apples") != shingles("Ann has many apples")


def test_short_texts_and_texts_without_spaces_or_words() -> None:
    assert shingles("Hello there") == {"hello there"}
    assert shingles(" ?! ") == {"?!"}
    weather, tomorrow = shingles("今天天气怎么样"), shingles("明天天气怎么样")
    assert 0 < len(weather & tomorrow) < len(weather)
