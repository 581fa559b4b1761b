"""What a stage's result depends on, as one digest: contents, settings and the stage's own version; never paths or times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from potstill.digests import file_digest
from potstill.pipeline.folder import RunFolder
from potstill.rows import content_hash


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
