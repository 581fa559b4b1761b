"""A job of ours while it is translated from Azure's fields, and what comes of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from potstill.errors import InputError
from potstill.spec import JobSpec, parse_job
from potstill.validation import Lines


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that stood in a description, and the variable it is known by from then on."""

    variable: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Translated:
    """job: as a job file of ours would have it. fields: where each of its keys came from. notes: what was lost."""

    job: Mapping[str, Any]
    fields: Mapping[str, str]
    notes: tuple[str, ...]
    api_key: ApiKey | None

    def to_spec(self, *, source: str, folder: Path, default_name: str, line_of: Lines | None = None) -> JobSpec:
        """The checked job; its relative paths are taken from `folder`.

        Args:
            line_of: The line of the source where a field stands, given the names that lead to it.

        Raises:
            InputError: a value is wrong; it is named by the field it came from.
        """

        def line(keys: Sequence[int | str]) -> int | None:
            return line_of(self._field(".".join(map(str, keys))).split(".")) if line_of else None

        try:
            return parse_job(self.job, source=source, folder=folder, default_name=default_name, line_of=line)
        except InputError as error:
            error.what = re.sub(r"'([\w.]+)'", lambda quoted: f"'{self._field(quoted[1])}'", error.what)
            told, others, keys = (error.hint or "").partition("wrong too: ")
            error.hint = told + others + re.sub(r"[\w.]+", lambda key: self._field(key[0]), keys) or None
            raise

    def _field(self, key: str) -> str:
        """What a key of the job is called in the description: by the field that it, or the section it is in, came from."""
        section = key
        while section:
            if section in self.fields:
                return self.fields[section] + key[len(section) :]
            section = section.rpartition(".")[0]
        return key

    def provide_key(self) -> str | None:
        """Put the key where a run looks for it, for this process and those it starts; a note where another is there already."""
        if self.api_key is None:
            return None
        present = os.environ.setdefault(self.api_key.variable, self.api_key.value)
        if present == self.api_key.value:
            return None
        return f"{self.api_key.variable} of the environment is used, not the key of the description"


class Draft:
    """The job so far. `source` names the description in errors."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.job: dict[str, Any] = {}
        self.fields: dict[str, str] = {}
        self.notes: list[str] = []
        self.api_key: ApiKey | None = None

    def put(self, key: str, value: Any, field: str) -> None:
        """Set a key of the job, unless the field is not given; two fields may both set it to the same value.

        Raises:
            InputError: another field has set it to another value.
        """
        if value is None:
            return
        section, _, name = key.rpartition(".")
        place = self.job.setdefault(section, {}) if section else self.job
        if not isinstance(place, dict):
            return  # a section that is no mapping: checking the job says so
        if name in place and not _same(place[name], value):
            raise InputError(
                f"'{self.fields.get(key, key)}' and '{field}' contradict each other", where=self.source,
                found=f"{place[name]!r} and {value!r}", expected="one of the two, or the same value",
            )
        place[name] = value
        self.fields.setdefault(key, field)

    def note(self, field: str, text: str) -> None:
        self.notes.append(f"{field}: {text}")

    def refuse(self, field: str, value: object, expected: str) -> NoReturn:
        raise InputError(f"wrong value for '{field}'", where=self.source, found=repr(value), expected=expected)

    def mapping(self, value: Any, field: str, known: Sequence[str]) -> Mapping[str, Any]:
        """The value as a mapping with none but these keys; empty where it is not given.

        What was found is not shown, because it may hold the key of an endpoint.

        Raises:
            InputError: it is none, or has others.
        """
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            found = f"a value of type {type(value).__name__}"
            raise InputError(
                f"wrong value for '{field}'", where=self.source, found=found, expected="a mapping of keys to values"
            )
        unknown = [f"{field}.{name}".strip(".") for name in value if name not in known]
        if unknown:
            raise InputError(
                f"unknown field '{unknown[0]}'", where=self.source, expected=f"one of {', '.join(known)}",
                hint=f"unknown too: {', '.join(unknown[1:6])}" if unknown[1:] else None,
            )
        return value

    def done(self, missing: Mapping[str, str]) -> Translated:
        """The whole job; `missing` has what required keys are called that no field has set."""
        return Translated(self.job, {**missing, **self.fields}, tuple(self.notes), self.api_key)


def _same(one: Any, other: Any) -> bool:
    """Whether two values mean the same; Azure writes numbers as texts."""
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return bool(one == other)
