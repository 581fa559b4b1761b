"""What makes training on this machine's processor fast, beside the number format it multiplies in: the memory it keeps.

Measured on one core of an EPYC with AVX-512 (8 layers of SmolLM2, batches of 8 x 88 tokens), CPU seconds a step: 3.1 as torch
does it, 2.4 in bfloat16, 1.9 with freed memory kept too.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library
_DEFAULT_TRIM_BYTES, _DEFAULT_MMAP_MAX = 128 * 1024, 65_536
_NEVER_TRIM = 2**31 - 1


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While inside, the C library keeps large blocks that are freed, instead of giving each back to the system at once.

    A step frees and asks again for the same gradients and logits, 100 MB and more each; fresh from the system, every page of
    them is first filled with zeros. Only the GNU C library has these settings; they come back, and the memory goes, at the end.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        library.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM_BYTES)
        library.malloc_trim(0)


def give_back_memory() -> None:
    """Objects that nobody holds any more are freed, and what they took goes back to the system, as far as it can be told to."""
    gc.collect()
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is not None and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
