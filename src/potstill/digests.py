"""What a file holds, as a short name for it."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

_WHOLE = 256 * 2**20
_EDGE = 64 * 2**20


def file_digest(path: Path) -> str:
    """128-bit BLAKE2b of a file's content; past 256 MiB of its size, its first and its last 64 MiB.

    Model weights of tens of gigabytes would take minutes to read whole, at each start of a run. A file that has not changed
    since this process last read it is not read again.
    """
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: Path, size_bytes: int, _mtime_ns: int) -> str:
    digest = blake2b(digest_size=16)
    digest.update(str(size_bytes).encode())
    with path.open("rb") as file:
        if size_bytes <= _WHOLE:
            while block := file.read(2**20):
                digest.update(block)
        else:
            digest.update(file.read(_EDGE))
            file.seek(-_EDGE, 2)
            digest.update(file.read())
    return digest.hexdigest()
