"""An entry of a catalogue, and reading a catalogue file.

Ours (`entries.yaml`) and the user's (the file that POTSTILL_CATALOG names) have one format, `name: mapping`: a model as in a
job file, plus its price, licence and other names.
"""

from __future__ import annotations

import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from potstill.catalog.model import Price
from potstill.errors import InputError
from potstill.spec_models import ModelSpec, Section, check_address, check_engine
from potstill.validation import explain
from potstill.yaml_files import read_mapping

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PriceSpec(Section):
    """Dollars per million tokens, the day they were looked up, and the share of them that a batch costs."""

    input: Dollars
    output: Dollars
    date: datetime.date | None = None
    batch: Annotated[float, Field(ge=0, le=1)] = 0.5

    def as_price(self) -> Price:
        return Price(self.input, self.output, self.date.isoformat() if self.date else None, self.batch)


class CatalogEntry(ModelSpec):
    """What a name stands for. `package`: the model is the one GGUF file inside this installed Python package."""

    package: str | None = None
    price: PriceSpec | None = None
    license: str | None = None
    aliases: tuple[str, ...] = ()

    @field_validator("aliases", mode="before")
    @classmethod
    def _a_list_of_names(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _names_one_model(self) -> CatalogEntry:
        given = [key for key in ("model", "path", "package") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError("give one of 'model', 'path' and 'package'")
        if self.endpoint is not None and self.model is None:
            raise ValueError("an endpoint needs 'model', the name it serves the model under")
        check_address(self.endpoint)
        check_engine(self)
        return self


def read_catalog(path: Path) -> dict[str, CatalogEntry]:
    """The entries of a catalogue file by name; relative paths in it start at its folder.

    Raises:
        InputError: the file cannot be read, or an entry is wrong; the error names the file and the key.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError("the catalogue file cannot be read", where=str(path), found=error.strerror) from error
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, mtime_ns: int, size: int) -> dict[str, CatalogEntry]:
    """`mtime_ns` and `size` are there for the cache: a changed file is read anew."""
    data = read_mapping(path, what="the catalogue file", expected="name: {model: ...} for every model")
    return {str(name): _parse(str(name), value, path) for name, value in data.items()}


def _parse(name: str, value: Any, path: Path) -> CatalogEntry:
    try:
        entry = CatalogEntry.model_validate({"model": value} if isinstance(value, str) else value)
    except ValidationError as error:
        raise explain(error, CatalogEntry, source=str(path), prefix=[name]) from None
    if entry.path is not None:
        return entry.model_copy(update={"path": str((path.parent / Path(entry.path).expanduser()).resolve())})
    if entry.endpoint is None and entry.model is not None and looks_like_path(entry.model):
        target = (path.parent / Path(entry.model).expanduser()).resolve()
        return entry.model_copy(update={"model": None, "path": str(target)})
    return entry


def looks_like_path(name: str) -> bool:
    """Whether a model reference can only be meant as a path."""
    return name.startswith((".", "/", "~")) or name.lower().endswith(".gguf")
