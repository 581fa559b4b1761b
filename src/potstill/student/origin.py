"""Which layers of which model a shrunk student was made of, in a file beside its weights: so layers find each other again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

FILE = "layers_kept.json"


def write_origin(folder: Path, model: Mapping[str, Any], kept: Sequence[int]) -> None:
    """Note the layers kept, counted from 0, of a model of this identity (by content)."""
    (folder / FILE).write_bytes(orjson.dumps({"model": dict(model), "layers": list(kept)}, option=orjson.OPT_INDENT_2))


def kept_layers(folder: Path, model: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The layers of this model that the student in the folder was made of; None where it was not made of it."""
    path = folder / FILE
    if not path.is_file():
        return None
    noted = orjson.loads(path.read_bytes())
    return tuple(noted["layers"]) if noted["model"] == dict(model) else None
