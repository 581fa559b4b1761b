"""How large a student is, read from the headers of its safetensors files; no weight is loaded."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

from potstill.errors import CorruptFileError

_MAX_HEADER_BYTES = 100 * 2**20  # the format's own bound


def parameter_count(folder: Path) -> int:
    """Number of weights a folder in the hub's layout stores; tied weights are stored, and count, once.

    Raises:
        CorruptFileError: there is no safetensors file, or one has no readable header.
    """
    return sum(math.prod(shape) for shape, _ in _tensors(folder))


def weight_bytes(folder: Path) -> int:
    """Bytes of all tensors, headers excluded.

    Raises:
        CorruptFileError: see `parameter_count`.
    """
    return sum(size for _, size in _tensors(folder))


def _tensors(folder: Path) -> Iterator[tuple[list[int], int]]:
    """Shape and bytes of every tensor in the folder's safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CorruptFileError("the folder holds no weights", where=str(folder), expected="a .safetensors file")
    for file in files:
        for name, entry in _header(file).items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                yield entry["shape"], end - start


def _header(file: Path) -> dict[str, dict[str, list[int]]]:
    """The JSON header (huggingface.co/docs/safetensors, "Format")."""
    try:
        with file.open("rb") as data:
            (size,) = struct.unpack("<Q", data.read(8))
            if size > _MAX_HEADER_BYTES:
                raise CorruptFileError("the header of a weight file is too long", where=str(file), found=f"{size} bytes")
            header: dict[str, dict[str, list[int]]] = json.loads(data.read(size))
    except (struct.error, ValueError) as error:
        raise CorruptFileError("a weight file has no readable header", where=str(file), found=error) from error
    return header
