"""Numbers come back as they were, and take the room that the theory says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from potstill.signals.coding import pack_small, pack_sorted, unpack_small, unpack_sorted
from potstill.signals.packing import Array, Cursor

SEQUENCES = {
    "none": ([], 0),
    "none of many": ([], 10**9),
    "one of one": ([0], 1),
    "all of them": (list(range(256)), 256),
    "equal ones": ([0, 0, 0, 7, 7, 255], 256),
    "first and last": ([0, 2**40 - 1], 2**40),
    "more than there are": ([0] * 50 + [1] * 50, 2),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sorted_numbers_come_back(name: str) -> None:
    numbers, universe = SEQUENCES[name]
    packed = pack_sorted(np.array(numbers, np.int64), universe) + b"what follows"
    cursor = Cursor(packed)
    assert unpack_sorted(cursor, universe).tolist() == numbers
    assert packed[cursor.offset :] == b"what follows"


@pytest.mark.parametrize("share", [1e-6, 1e-4, 0.003, 0.1, 0.7, 3.0])
def test_sorted_numbers_take_two_bits_and_the_logarithm_of_their_distance(share: float) -> None:
    universe = 50_000_000 if share < 0.01 else 20_000
    count = round(universe * share)
    numbers = np.sort(np.random.default_rng(0).integers(universe, size=count))
    packed = pack_sorted(numbers, universe)
    assert np.array_equal(unpack_sorted(Cursor(packed), universe), numbers)
    assert 8 * len(packed) <= count * (2 + max(0.0, math.log2(universe / count))) + 64


def gamma_bits(numbers: Array) -> int:
    return int(sum(2 * math.floor(math.log2(number)) + 1 for number in numbers))


@pytest.mark.parametrize("numbers", [[], [1], [4096], [1, 2, 3, 4, 5, 6, 7, 8, 9], [1] * 100, [4095, 1, 1, 4096, 2]])
def test_small_numbers_come_back_in_the_bits_of_the_gamma_code(numbers: list[int]) -> None:
    packed = pack_small(np.array(numbers, np.int64))
    assert unpack_small(Cursor(packed), len(numbers)).tolist() == numbers
    assert len(packed) == math.ceil(gamma_bits(np.array(numbers)) / 8)
