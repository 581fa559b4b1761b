"""Python's collector of cyclic garbage, called more rarely while many requests are in flight."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# By default it looks at the young objects each time there are 700 more. Hundreds of requests in flight hold tens of thousands,
# hardly one of them in a cycle: to look at them again and again took a quarter of the CPU time of asking.
OBJECTS = 10_000

_lock = threading.Lock()
_inside = 0
_before = (0, 0, 0)


@contextmanager
def collected_rarely() -> Iterator[None]:
    """Raise the collector's first threshold; the last to leave sets it back. A higher one, or none, is left alone."""
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = gc.get_threshold()
            if 0 < _before[0] < OBJECTS:
                gc.set_threshold(OBJECTS, *_before[1:])
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                gc.set_threshold(*_before)
