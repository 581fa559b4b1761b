"""Job files of ours to descriptions of Azure's, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from potstill.errors import InputError, MachineError
from potstill.service.any_job import load_any_job
from potstill.service.azure_description import is_azure_job, left_out, shown_path, write_azure_job
from potstill.spec import JobSpec

Kind = Literal["azure", "potstill"]
KINDS: tuple[Kind, ...] = ("azure", "potstill")


@dataclass(frozen=True, slots=True)
class Converted:
    """The other file's text, and one line on each thing that it does not say."""

    text: str
    notes: tuple[str, ...]


def convert_job(file: Path, *, to: str | None, out: Path | None) -> Converted:
    """Convert a job file, by default to the other kind, and write it where `out` is given.

    Raises:
        InputError: the file is wrong, the other kind cannot express it, or `out` exists.
        MachineError: `out` cannot be written.
    """
    if to is not None and to not in KINDS:
        raise InputError("unknown kind of job file", where="--to", found=to, expected=", ".join(KINDS))
    if out is not None and out.exists():
        raise InputError("the file exists already", where=str(out), expected="a new file: nothing is overwritten")
    folder = out.resolve().parent if out is not None else None
    goal = to or ("potstill" if is_azure_job(file) else "azure")
    spec, notes = load_any_job(file)
    if goal == "azure":
        converted = Converted(write_azure_job(spec, folder=folder), (*notes, *left_out(spec)))
    else:
        converted = Converted(write_short_job(spec, folder=folder), notes)
    if out is not None:
        _write_new(out, converted.text)
    return converted


def write_short_job(spec: JobSpec, *, folder: Path | None = None) -> str:
    """A job file with what differs from the defaults; files in `folder` are named relative to it."""
    job = spec.model_dump(mode="json", exclude_defaults=True)
    teachers = job["teacher"] if isinstance(job["teacher"], list) else [job["teacher"]]
    for section in (*teachers, job["student"], job["data"]):
        paths = {name: value for name, value in section.items() if name in ("path", "train", "validation", "test")}
        section |= {name: shown_path(value, folder) for name, value in paths.items()}
    job["teacher"] = list(map(_shortest, teachers)) if isinstance(job["teacher"], list) else _shortest(job["teacher"])
    job["student"] = _shortest(job["student"])
    return yaml.safe_dump(job, sort_keys=False, allow_unicode=True, width=100)


def _shortest(model: dict[str, Any]) -> dict[str, Any] | str:
    """A model as its name where that is all there is."""
    return str(model["model"]) if set(model) == {"model"} else model


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise InputError("the file exists already", where=str(path), expected="a new file: nothing is overwritten") from None
    except FileNotFoundError:
        raise InputError("the folder does not exist", where=str(path.parent)) from None
    except OSError as error:
        raise MachineError("the file cannot be written", where=str(path), found=error.strerror) from error
