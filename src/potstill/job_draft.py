"""A job file with mistakes in it: all of them at once, and what can be read of the rest.

`potstill check` goes on with the rest, so that one look at a file finds what is wrong with its data and models too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from potstill.errors import InputError
from potstill.spec import EXAMPLES, JobSpec, read_job_mapping, with_absolute_paths
from potstill.validation import explain_all, place_of
from potstill.yaml_files import line_of

# What stands in for a required section that is missing or cannot be read; nobody looks at it.
_STAND_INS: Mapping[str, Any] = {"name": "job", "task": "text", "teacher": "none", "student": "none", "data": {"train": "none"}}


@dataclass(frozen=True)
class JobDraft:
    """A job as far as it can be read.

    problems: what is wrong in the file, one error a key. touched: the sections in which something is wrong; keys of them were
    left out, which gives them their defaults. unread: those of them that stand for nothing, because too little was left.
    """

    job: JobSpec
    problems: tuple[InputError, ...] = ()
    touched: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()


def draft_job(path: Path) -> JobDraft:
    """Read a job file, and go on after what is wrong in it.

    Raises:
        InputError: there is nothing to go on with: no file, or no YAML mapping.
    """
    data = {"name": path.stem, **read_job_mapping(path)}
    folder = path.resolve().parent
    try:
        return JobDraft(with_absolute_paths(JobSpec.model_validate(data), folder))
    except ValidationError as error:
        problems = explain_all(error, JobSpec, source=str(path), examples=EXAMPLES, line_of=partial(line_of, path))
        places = [place_of(problem) for problem in error.errors()]
    sections = frozenset(str(place[0]) for place in places if place)
    job, unread = _mended({key: value for key, value in data.items() if key in JobSpec.model_fields}, places)
    return JobDraft(with_absolute_paths(job, folder), tuple(problems), sections | unread, unread)


def _mended(data: Mapping[str, Any], places: Sequence[tuple[int | str, ...]]) -> tuple[JobSpec, frozenset[str]]:
    """The job without its wrong keys; a section that is still wrong then is replaced whole, and named."""
    rest = copy.deepcopy(dict(data))
    for place in places:
        _leave_out(rest, place)
    unread: set[str] = set()
    while True:
        try:
            return JobSpec.model_validate(rest), frozenset(unread)
        except ValidationError as error:
            for section in {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]} or set(rest):
                unread.add(section)
                rest.pop(section, None)
                if section in _STAND_INS:
                    rest[section] = _STAND_INS[section]


def _leave_out(data: dict[str, Any], place: Sequence[int | str]) -> None:
    """Drop the innermost key of mappings on the way to a place; entries of lists go with their list."""
    mapping = data
    for position, key in enumerate(place):
        inner = mapping.get(key) if isinstance(key, str) else None
        if position + 1 < len(place) and isinstance(inner, dict) and place[position + 1] in inner:
            mapping = inner
            continue
        if key in mapping and not _is_missing_below(inner, place[position + 1 :]):
            del mapping[key]
        return


def _is_missing_below(inner: Any, rest: Sequence[int | str]) -> bool:
    """Whether the problem is a key that a mapping lacks, which leaves nothing to drop."""
    return isinstance(inner, dict) and len(rest) == 1
