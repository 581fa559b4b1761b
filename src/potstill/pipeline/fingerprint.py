"""What a stage's result depends on, as one digest: contents, settings and the stage's own version; never paths or times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from potstill.pipeline.folder import RunFolder
from potstill.rows import content_hash

_WHOLE = 256 * 2**20


def file_digest(path: Path) -> str:
    """128-bit BLAKE2b of a file's content; past 256 MiB of its size, its first and its last 64 MiB.

    Model weights of tens of gigabytes would take minutes to read whole, at each start of a run.
    """
    digest = blake2b(digest_size=16)
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        if size <= _WHOLE:
            while block := file.read(2**20):
                digest.update(block)
        else:
            digest.update(file.read(2**26))
            file.seek(-(2**26), 2)
            digest.update(file.read())
    return digest.hexdigest()


def fingerprint(stage: str, version: int, inputs: Mapping[str, Any]) -> str:
    """The digest of all that a stage's result depends on."""
    return content_hash({"stage": stage, "version": version, "inputs": dict(inputs)})


def digests(folder: RunFolder, files: Iterable[Path]) -> dict[str, str]:
    """Each existing file's digest by its path inside the run folder."""
    return {folder.relative(path): file_digest(path) for path in sorted(files) if path.is_file()}


def unchanged(folder: RunFolder, recorded: Mapping[str, str]) -> bool:
    """Whether every recorded output is still there with the content it had."""
    return all(
        (folder.root / name).is_file() and file_digest(folder.root / name) == digest for name, digest in recorded.items()
    )
