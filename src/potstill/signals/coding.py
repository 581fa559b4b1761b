"""Whole numbers in few bits, laid out so that numpy reads all of them at once.

Sorted numbers take Elias's and Fano's code (Elias 1974, doi:10.1145/321812.321820): of n numbers below u it needs at most
2 + log2(u / n) bits a number, half a bit above what any code for all such sequences needs. Several ascending rows are one such
sequence when each row begins where the one before could have ended, and then how long each row is need not be told. Small
numbers take Elias's gamma code (Elias 1975, doi:10.1109/TIT.1975.1055349), 1 bit for a one, 3 for two and three; its bits stand
in planes, first those of all numbers, then those of the numbers that go on.
"""

from __future__ import annotations

import numpy as np

from potstill.signals.packing import Array, Cursor

_PLANES = ((32, "<u4"), (16, "<u2"), (8, "u1"))


def pack_sorted(numbers: Array, universe: int) -> bytes:
    """At most 2^32 - 1 int64 numbers in [0, universe), ascending; equal ones may follow each other."""
    count = len(numbers)
    width = _low_width(count, universe)
    high = np.zeros(_high_length(count, universe, width), bool)
    high[(numbers >> width) + np.arange(count)] = True
    return count.to_bytes(4, "little") + _pack_bits(numbers & ((1 << width) - 1), width) + np.packbits(high).tobytes()


def unpack_sorted(cursor: Cursor, universe: int) -> Array:
    """The numbers that `pack_sorted` wrote for the same universe, int64."""
    count = int(cursor.take("<u4", 1)[0])
    width = _low_width(count, universe)
    low = _unpack_bits(cursor, count, width)
    length = _high_length(count, universe, width)
    high = np.unpackbits(cursor.take("u1", -(-length // 8)), count=length).view(bool)
    numbers: Array = (high.nonzero()[0] - np.arange(count)) << width
    numbers |= low
    return numbers


def unpack_rows(cursor: Cursor, rows: int, limit: int) -> tuple[Array, Array]:
    """Rows of ascending numbers below `limit` that were packed as one sequence, row * limit + number: how many each row has,
    and the numbers."""
    together = unpack_sorted(cursor, rows * limit)
    starts = np.arange(rows + 1, dtype=np.int64) * limit
    edges = together.searchsorted(starts)
    used = edges[1:] - edges[:-1]
    return used, together - starts[:-1].repeat(used)


def pack_small(numbers: Array) -> bytes:
    """Numbers from 1 on, most of them small."""
    bits, rest = [], numbers
    while len(rest):
        goes_on = rest > 1
        rest = rest[goes_on]
        bits += [goes_on, (rest & 1).astype(bool)]
        rest = rest >> 1
    return np.packbits(np.concatenate(bits)).tobytes() if bits else b""


def unpack_small(cursor: Cursor, count: int) -> Array:
    """The `count` numbers that `pack_small` wrote, which are the last in the body; int64."""
    bits = np.unpackbits(cursor.take("u1", len(cursor.content) - cursor.offset))
    numbers = np.ones(count, np.int64)
    alive: Array | None = None  # all of them
    left, start, place = count, 0, 1
    while left:
        going_on = bits[start : start + left].view(bool).nonzero()[0]
        alive = going_on if alive is None else alive[going_on]
        start += left
        left = len(alive)
        # Its leading one stands a place higher, and its bit in the place left: 2 + bit for the 1 that was counted.
        numbers[alive] += place * (1 + bits[start : start + left].astype(np.int64))
        start += left
        place *= 2
    return numbers


def _low_width(count: int, universe: int) -> int:
    """How many low bits of a number stand by themselves; what is above is told in unary, in about 2 bits."""
    return max(0, (universe // max(count, 1)).bit_length() - 1)


def _high_length(count: int, universe: int, width: int) -> int:
    return count + (universe >> width) + 1


def _pack_bits(numbers: Array, width: int) -> bytes:
    """Numbers of `width` bits: the low 32, 16 and 8 of them as such, the bits that are left one after the other."""
    parts = []
    for size, kind in _PLANES:
        if width >= size:
            parts.append((numbers & ((1 << size) - 1)).astype(kind).tobytes())
            numbers, width = numbers >> size, width - size
    if width:
        rest = np.unpackbits(numbers.astype(np.uint8)[:, None], axis=1, count=width, bitorder="little")
        parts.append(np.packbits(rest).tobytes())
    return b"".join(parts)


def _unpack_bits(cursor: Cursor, count: int, width: int) -> Array:
    """`count` numbers, as `_pack_bits` wrote them, int64."""
    numbers, done = np.zeros(count, np.int64), 0
    for size, kind in _PLANES:
        if width - done >= size:
            numbers |= cursor.take(kind, count).astype(np.int64) << done
            done += size
    if width > done:
        length = count * (width - done)
        bits = np.unpackbits(cursor.take("u1", -(-length // 8)), count=length).reshape(count, width - done)
        rest = bits[:, 0].copy()
        for place in range(1, width - done):  # a few passes over bytes, where packbits would go row by row
            rest |= bits[:, place] << place
        numbers |= rest.astype(np.int64) << done
    return numbers
