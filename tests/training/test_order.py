"""The order of rows: reproducible, complete, and grouped by length."""

from __future__ import annotations

import random
from itertools import pairwise

from potstill.training.order import GroupedByLength

LENGTHS = random.Random(0).choices(range(10, 500), k=203)


def padded(order: list[int], size: int) -> int:
    """Tokens in all batches when each is padded to its longest row."""
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    return sum(len(batch) * max(LENGTHS[i] for i in batch) for batch in batches)


def test_every_row_once_and_the_same_for_seed_and_epoch() -> None:
    one, other = (GroupedByLength(LENGTHS, 8, seed=3) for _ in range(2))
    assert list(one) == list(one) == list(other)
    assert sorted(one) == list(range(len(LENGTHS)))
    other.epoch = 1
    assert list(one) != list(other)
    assert list(one) != list(GroupedByLength(LENGTHS, 8, seed=4))


def test_less_padding_than_without_grouping() -> None:
    tokens, shuffled = sum(LENGTHS), random.Random(1).sample(range(len(LENGTHS)), len(LENGTHS))
    assert padded(list(GroupedByLength(LENGTHS, 8, seed=0)), 8) - tokens < 0.3 * (padded(shuffled, 8) - tokens)


def test_many_rows_have_hardly_any_padding_and_other_batches_in_every_epoch() -> None:
    lengths = random.Random(2).choices(range(10, 500), k=600)
    sampler = GroupedByLength(lengths, 8, seed=0)

    def batches() -> list[frozenset[int]]:
        order = list(sampler)
        return [frozenset(order[start : start + 8]) for start in range(0, len(order), 8)]

    first = batches()
    assert sum(len(batch) * max(lengths[i] for i in batch) for batch in first) < 1.05 * sum(lengths)
    sampler.epoch = 1
    assert len(set(first) & set(batches())) <= 1


def test_batches_do_not_come_by_length() -> None:
    order = list(GroupedByLength(LENGTHS, 8, seed=0))
    longest = [max(LENGTHS[i] for i in order[start : start + 8]) for start in range(0, 200, 8)]
    falls = sum(one > other for one, other in pairwise(longest))
    assert 6 <= falls <= 18  # of 24 steps; sorted batches would give nearly 0 or 24


def test_fewer_rows_than_a_batch() -> None:
    assert sorted(GroupedByLength([5, 6, 7], 8, seed=0)) == [0, 1, 2]


def test_processes_that_take_turns_share_what_one_would_take() -> None:
    """203 rows are 26 batches of 8; three processes take 9 each, and fillers make the last ones whole."""
    alone, shared = (list(GroupedByLength(LENGTHS, 8, seed=3, processes=count)) for count in (1, 3))
    assert shared[: len(alone)] == alone
    assert shared[len(alone) :] == list(range(203, 9 * 3 * 8))
    assert GroupedByLength(LENGTHS, 8, seed=3, processes=3).fillers == 9 * 3 * 8 - 203
