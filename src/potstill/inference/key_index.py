"""Where the good reply to each key lies: a table that takes at most 32 bytes a key, where a dictionary takes about 150.

An open-addressing table of 64-bit integers with linear probing. A slot holds half of the 128-bit key and a place; a key's first
slot follows from its size in proportion, so the entries lie nearly in order. The other half of the key is not kept: two keys
that share one half meet with a probability of about one in 4e7 among a million, and then one of the two has no place here any
more. Whoever reads a place finds the whole key there, and has to compare it.
"""

from __future__ import annotations

from array import array

_FIRST_SLOTS = 1024
# Probes stay short up to here, and a table just grown by half still takes no more than 32 bytes a key.
_FULLEST = 0.75
_EMPTY = 0
_OFFSET_BITS = 40


def place_of(segment: int, offset: int) -> int:
    """The number of a segment and a place in it as one integer; never 0, for segments are counted from 1."""
    return segment << _OFFSET_BITS | offset


def split_place(place: int) -> tuple[int, int]:
    """The segment and the offset of a place."""
    return place >> _OFFSET_BITS, place & ((1 << _OFFSET_BITS) - 1)


class KeyIndex:
    """A mapping from keys of 32 hexadecimal digits to places, which are integers from 1 to 2^64 - 1."""

    def __init__(self) -> None:
        self._count = 0
        self._allot(_FIRST_SLOTS)

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """What the table takes."""
        return self._table.itemsize * len(self._table)

    def get(self, key: str) -> int | None:
        """The place of a key, None where it has none."""
        half = int(key[:16], 16)
        place = self._table[self._slot(half) + 1]
        return None if place == _EMPTY else place

    def put(self, key: str, place: int) -> None:
        """Give a key a place, in stead of an earlier one."""
        half = int(key[:16], 16)
        slot = self._slot(half)
        if self._table[slot + 1] == _EMPTY:
            if self._count >= _FULLEST * self._slots:
                self._grow()
                slot = self._slot(half)
            self._count += 1
        self._table[slot], self._table[slot + 1] = half, place

    def places(self) -> set[int]:
        """All places that a key has: for a compaction, not for every day."""
        return {place for place in self._table[1::2] if place != _EMPTY}

    def _slot(self, half: int) -> int:
        """Where in the table a key's entry is, or would be: the half first, the place after it."""
        table, end = self._table, 2 * self._slots
        slot = 2 * (half * self._slots >> 64)
        while table[slot + 1] != _EMPTY and table[slot] != half:
            slot += 2
            if slot == end:
                slot = 0
        return slot

    def _allot(self, slots: int) -> None:
        self._slots = slots
        self._table = array("Q", bytes(16 * slots))

    def _grow(self) -> None:
        old = self._table
        self._allot(self._slots + self._slots // 2)
        for place in range(1, len(old), 2):
            if old[place] != _EMPTY:
                slot = self._slot(old[place - 1])
                self._table[slot], self._table[slot + 1] = old[place - 1], old[place]
