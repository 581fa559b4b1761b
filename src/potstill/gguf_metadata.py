"""The metadata at the head of a GGUF file: template, special tokens, context length.

Reads only what is asked for and seeks over the rest, because the general reader builds an object for every one of a
vocabulary's tokens and merges (SmolLM2, 49,152 tokens, measured on two CPU cores: 4.6 s and 178 MB, here 0.05 s and no growth).
Format: github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from potstill.errors import InputError, ModelNotFoundError

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_LONGEST_STRING = 1 << 26  # bytes; a longer one means that these are not GGUF lengths at all


@dataclass(frozen=True, slots=True)
class StringArray:
    """A list of strings that stays in the file: where it begins and how many it holds."""

    path: Path
    offset: int
    count: int

    def pick(self, indices: Collection[int]) -> dict[int, str]:
        """The strings at these positions; positions outside the list are left out."""
        wanted = {index for index in indices if 0 <= index < self.count}
        found: dict[int, str] = {}
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for index in range(max(wanted, default=-1) + 1):
                text = _bytes(file)
                if index in wanted:
                    found[index] = text.decode("utf-8", errors="replace")
        return found


def read_metadata(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """The values of these metadata keys, where the file has them.

    Scalars and strings come as Python values, lists of strings as `StringArray`; other lists are not read.

    Raises:
        ModelNotFoundError: no such file.
        InputError: the file is no GGUF file of version 2 or 3, or it ends within the metadata.
    """
    values: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            count = _open(file, path)
            for _ in range(count):
                key = _bytes(file).decode("utf-8", errors="replace")
                value = _value(file, path, _scalar(file, "<I"))
                if key in keys:
                    values[key] = value
                    if len(values) == len(keys):
                        break
    except FileNotFoundError:
        raise ModelNotFoundError("the model file does not exist", where=str(path)) from None
    except OSError as error:
        raise InputError("the model file cannot be read", where=str(path), found=error.strerror) from error
    except (struct.error, ValueError) as error:
        raise InputError("the GGUF file is damaged or was cut off", where=str(path), found=error) from error
    return values


def _open(file: BinaryIO, path: Path) -> int:
    """Checks magic and version; how many metadata entries follow."""
    head = file.read(24)
    if head[:4] != b"GGUF":
        raise InputError("this is not a GGUF file", where=str(path), found=f"it begins with {head[:4]!r}", expected="b'GGUF'")
    _, version, _, count = struct.unpack("<4sIQQ", head)
    if version not in (2, 3):
        raise InputError("this version of GGUF cannot be read", where=str(path), found=version, expected="version 2 or 3")
    return int(count)


def _scalar(file: BinaryIO, code: str) -> Any:
    return struct.unpack(code, file.read(struct.calcsize(code)))[0]


def _bytes(file: BinaryIO) -> bytes:
    length = _scalar(file, "<Q")
    if length > _LONGEST_STRING:
        raise ValueError(f"a string of {length} bytes")
    text = file.read(length)
    if len(text) != length:
        raise ValueError("the file ends within a string")
    return text


def _value(file: BinaryIO, path: Path, kind: int) -> Any:
    if kind == _STRING:
        return _bytes(file).decode("utf-8", errors="replace")
    if kind == _ARRAY:
        return _array(file, path)
    if kind not in _SCALARS:
        raise ValueError(f"unknown value type {kind}")
    return _scalar(file, _SCALARS[kind])


def _array(file: BinaryIO, path: Path) -> StringArray | None:
    """Seeks over a list. Lists of strings have to be walked through: every one has a length of its own."""
    kind, count = struct.unpack("<IQ", file.read(12))
    if kind == _STRING:
        array = StringArray(path, file.tell(), count)
        for _ in range(count):
            _bytes(file)
        return array
    if kind not in _SCALARS:
        raise ValueError(f"a list of value type {kind}")
    file.seek(count * struct.calcsize(_SCALARS[kind]), 1)
    return None
