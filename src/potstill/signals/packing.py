"""Numbers to few bytes and back: token ids in as many bits as a vocabulary needs, and ragged rows as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_LOW_BITS = 16


@dataclass(frozen=True, slots=True)
class Body:
    """What the store keeps of one text: how many target positions it has, and the packed bytes of its signals."""

    positions: int
    content: memoryview | bytes


@dataclass(slots=True)
class Cursor:
    """Reads arrays off the front of a body."""

    content: memoryview | bytes
    offset: int = 0

    def take(self, dtype: str, count: int) -> Array:
        """The next `count` numbers, in place."""
        taken = np.frombuffer(self.content, dtype, count, self.offset)
        self.offset += taken.nbytes
        return taken


def pack_ids(ids: Array, vocabulary: int) -> bytes:
    """Token ids below `vocabulary`: 16 bits each, and what they have beyond in a second plane of as few bits as it takes."""
    beyond = _bits_beyond(vocabulary)
    low = (ids & 0xFFFF).astype("<u2").tobytes()
    if not beyond:
        return low
    bits = (ids[:, None] >> np.arange(_LOW_BITS, _LOW_BITS + beyond)) & 1
    return low + np.packbits(bits.astype(np.uint8)).tobytes()


def unpack_ids(cursor: Cursor, count: int, vocabulary: int) -> Array:
    """`count` token ids, as `pack_ids` wrote them."""
    beyond = _bits_beyond(vocabulary)
    low = cursor.take("<u2", count)
    if not beyond:
        return low
    packed = cursor.take("u1", -(-count * beyond // 8))
    bits = np.unpackbits(packed, count=count * beyond).reshape(count, beyond)
    ids = low.astype(np.int32)
    for place in range(beyond):
        ids |= bits[:, place].astype(np.int32) << (_LOW_BITS + place)
    return ids


def _bits_beyond(vocabulary: int) -> int:
    return max(0, (vocabulary - 1).bit_length() - _LOW_BITS)


def as_table(rows: Array, taken: Array, fill: float, dtype: type[Any]) -> Array:
    """Rows of differing lengths that lie after each other, at the `places` (N, longest) they take, with `fill` behind them."""
    table = np.full(taken.shape, fill, dtype)
    table[taken] = rows
    return table


def places(used: Array) -> Array:
    """(N, longest), True at the first `used` places of each row."""
    taken: Array = np.arange(int(used.max(initial=0))) < used[:, None]
    return taken
