"""An entry of a catalogue, and reading a catalogue file.

Ours (`entries.yaml`) and the user's (the file that POTSTILL_CATALOG names) have one format, `name: mapping`: a model as in a
job file, plus its price, licence and other names.
"""

from __future__ import annotations

import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from potstill.catalog.model import Price
from potstill.errors import InputError
from potstill.spec import ModelSpec, Section

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PriceSpec(Section):
    """Dollars per million tokens, and the day they were looked up."""

    input: Dollars
    output: Dollars
    date: datetime.date | None = None

    def as_price(self) -> Price:
        return Price(self.input, self.output, self.date.isoformat() if self.date else None)


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
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError("an endpoint starts with http:// or https://")
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
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError("the catalogue file is not YAML", where=f"{path}{line}", found=error.problem) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError("the catalogue file cannot be read", where=str(path), found=error) from error
    if not isinstance(data, dict):
        raise InputError("the catalogue file holds no mapping", where=str(path), expected="name: {model: ...} for every model")
    return {str(name): _parse(str(name), value, path) for name, value in data.items()}


def _parse(name: str, value: Any, path: Path) -> CatalogEntry:
    try:
        entry = CatalogEntry.model_validate({"model": value} if isinstance(value, str) else value)
    except ValidationError as error:
        raise _explain(name, error, path) from None
    if entry.path is not None:
        return entry.model_copy(update={"path": str((path.parent / Path(entry.path).expanduser()).resolve())})
    if entry.endpoint is None and entry.model is not None and looks_like_path(entry.model):
        target = (path.parent / Path(entry.model).expanduser()).resolve()
        return entry.model_copy(update={"model": None, "path": str(target)})
    return entry


def looks_like_path(name: str) -> bool:
    """Whether a model reference can only be meant as a path."""
    return name.startswith((".", "/", "~")) or name.lower().endswith(".gguf")


def _explain(name: str, error: ValidationError, path: Path) -> InputError:
    first = error.errors()[0]
    key = ".".join([name, *(str(part) for part in first["loc"])])
    found = repr(first["input"])[:120]
    if first["type"] == "extra_forbidden":
        known = ", ".join(CatalogEntry.model_fields if len(first["loc"]) == 1 else PriceSpec.model_fields)
        return InputError(f"unknown key '{key}'", where=str(path), expected=f"one of {known}")
    if first["type"] == "missing":
        return InputError(f"the required key '{key}' is missing", where=str(path), found=found)
    if first["type"] == "value_error":
        return InputError(f"'{key}': {first['ctx']['error']}", where=str(path), found=found)
    expected = first["msg"].removeprefix("Input should be ")
    return InputError(f"wrong value for '{key}'", where=str(path), found=found, expected=expected)
