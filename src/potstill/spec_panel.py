"""What has to hold of several teachers together. Part of `potstill.spec`; all raise ValueError, as pydantic wants."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from potstill.spec_models import TeacherSpec


def file_name(called: str) -> str:
    """A model's name as a part of a file's name, on any system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", called).casefold()


def check_panel(teachers: Sequence[TeacherSpec]) -> None:
    """Teachers that can be told apart.

    Raises:
        ValueError: two have one name, or are one model.
    """
    models = Counter((teacher.model, teacher.path, teacher.endpoint) for teacher in teachers)
    if twice := [str(model or path) for (model, path, _), times in models.items() if times > 1]:
        raise ValueError(f"'{twice[0]}' stands in the list twice: for several answers of one teacher set generation.samples")
    names = Counter(file_name(teacher.called) for teacher in teachers)
    if shared := [teacher.called for teacher in teachers if names[file_name(teacher.called)] > 1]:
        raise ValueError(f"{' and '.join(map(repr, shared))} cannot be told apart: give each a 'name'")


def check_strategy(strategy: str, teachers: Sequence[TeacherSpec]) -> None:
    """Teachers that a strategy can work with; none where the job names one teacher and no list.

    Raises:
        ValueError: it cannot.
    """
    if strategy != "mix" and len(teachers) < 2:
        expected = "for several answers of one teacher set samples and select" if strategy != "route" else "one has all rows"
        raise ValueError(f"strategy: {strategy} needs a list of teachers; {expected}")
    for teacher in teachers:
        if strategy != "mix" and teacher.weight != 1:
            raise ValueError(f"the weight of the teacher '{teacher.called}' means something under strategy: mix alone")
        if strategy != "route" and teacher.routes is not None:
            raise ValueError(f"the routes of the teacher '{teacher.called}' mean something under strategy: route alone")
    if strategy == "route":
        _check_routes(teachers)


def _check_routes(teachers: Sequence[TeacherSpec]) -> None:
    rest = [teacher.called for teacher in teachers if teacher.routes is None]
    if len(rest) > 1:
        raise ValueError(f"the teachers {' and '.join(map(repr, rest))} have no routes; one at most takes the rest of the rows")
    taken = Counter(value for teacher in teachers for value in set(teacher.routes or ()))
    if twice := [value for value, times in taken.items() if times > 1]:
        raise ValueError(f"{twice[0]!r} stands in the routes of several teachers")
