"""What the signals of a store are of: the teacher, its template, and the form in which they are kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from potstill.errors import CorruptFileError, InputError, MachineError
from potstill.rows import content_hash
from potstill.signals.encoding import Encoding, encoding_of
from potstill.signals.keys import TextKeys

_FORMAT = 3
FILE_NAME = "store.json"


@dataclass(frozen=True, slots=True)
class StoreHeader:
    """Whose signals, and how they are kept. Two stores with the same header hold the same for the same text."""

    keys: TextKeys
    encoding: Encoding

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "format": _FORMAT, "teacher": dict(self.keys.teacher), "template": self.keys.template,
            "encoding": self.encoding.settings,
        }

    @property
    def digest(self) -> str:
        """32 hexadecimal digits, by which each file of a store knows its store."""
        return content_hash(self.as_dict())

    @property
    def folder_name(self) -> str:
        """A name for the store's folder beside those of other teachers and forms."""
        return f"{self.encoding.name}-{self.digest[:12]}"


def read_header(folder: Path) -> StoreHeader | None:
    """The header of the store in a folder; None where there is no store.

    Raises:
        CorruptFileError: it is no header.
        InputError: it is of a format that this version does not know.
        MachineError: it cannot be read.
    """
    file = folder / FILE_NAME
    try:
        values = orjson.loads(file.read_bytes())
        if values["format"] != _FORMAT:
            raise InputError(
                "the signals were written by another version of Potstill", where=str(file), found=f"format {values['format']}",
                expected=f"format {_FORMAT}", hint="delete the folder: they are captured again",
            )
        return StoreHeader(TextKeys(values["teacher"], values["template"]), encoding_of(values["encoding"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MachineError("captured signals cannot be read", where=str(file), found=error.strerror) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(
            "the header of captured signals is damaged", where=str(file), found=error,
            hint="restore the file from a copy, or delete the folder: the signals are captured again",
        ) from error


def write_header(folder: Path, header: StoreHeader) -> None:
    """Write it, whole or not at all."""
    draft = folder / f".{FILE_NAME}"
    with draft.open("wb") as file:
        file.write(orjson.dumps(header.as_dict(), option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / FILE_NAME)


def check_same(found: StoreHeader, wanted: StoreHeader, folder: Path) -> None:
    """Signals of two teachers, or in two forms, are never mixed.

    Raises:
        InputError: the store is of another header than wanted; says in what it differs.
    """
    difference = _first_difference(found.as_dict(), wanted.as_dict())
    if difference is not None:
        name, there, here = difference
        raise InputError(
            f"these signals were captured with another {name}", where=str(folder), found=there, expected=here,
            hint="keep them, and give the new ones a folder of their own",
        )


def _first_difference(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> tuple[str, str, str] | None:
    for name in (*wanted, *(name for name in found if name not in wanted)):
        a, b = found.get(name), wanted.get(name)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            return _first_difference(a, b, f"{prefix}{name} ")
        return f"{prefix}{name}", str(a), str(b)
    return None
