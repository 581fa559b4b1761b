"""Which of several teachers answer a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, Protocol, TypeVar

import orjson

from potstill.errors import JobFailedError
from potstill.rows import Row


class Named(Protocol):
    """A teacher, open or not."""

    @property
    def name(self) -> str: ...


Whom = TypeVar("Whom", bound=Named)
Whom_co = TypeVar("Whom_co", bound=Named, covariant=True)


class Assignment(Protocol[Whom_co]):
    """Says who answers a row."""

    def teachers(self, row: Row) -> Sequence[Whom_co]:
        """At least one."""
        ...


@dataclass(frozen=True, slots=True)
class Everyone(Generic[Whom]):
    """All teachers answer every row."""

    panel: Sequence[Whom]

    def teachers(self, row: Row) -> Sequence[Whom]:
        return self.panel


@dataclass(frozen=True, slots=True)
class Mix(Generic[Whom]):
    """One teacher a row, as often as its weight says; which one, a hash of the row's messages decides.

    Weighted rendezvous hashing: each teacher draws a number for the row, and the smallest wins. So a row that is added moves
    no other row, and a teacher that is added or gets another weight moves those rows alone that it wins or loses.
    """

    panel: Sequence[Whom]
    weights: Sequence[float]

    def teachers(self, row: Row) -> Sequence[Whom]:
        content = orjson.dumps([message.as_dict() for message in row.messages])
        draws = [
            -math.log(_uniform(content, teacher.name)) / weight
            for teacher, weight in zip(self.panel, self.weights, strict=True)
        ]
        return [self.panel[draws.index(min(draws))]]


def _uniform(content: bytes, name: str) -> float:
    """A number in (0, 1] that content and name alone decide."""
    digest = blake2b(content, digest_size=8, key=blake2b(name.encode(), digest_size=32).digest()).digest()
    return (int.from_bytes(digest) + 1) / 2**64


@dataclass(frozen=True, slots=True)
class Route(Generic[Whom]):
    """One teacher a row, by a field of the row.

    field: such as meta.topic. table: who takes rows of which value. rest: who takes all others.
    """

    field: str
    table: Mapping[str, Whom]
    rest: Whom | None = None

    def teachers(self, row: Row) -> Sequence[Whom]:
        value = route_of(row, self.field)
        teacher = self.rest if value is None else self.table.get(value, self.rest)
        if teacher is None:
            raise JobFailedError(
                "no teacher takes this row", where=f"row {row.id}", found=f"{self.field}: {value}",
                expected=f"one of {', '.join(self.table)}", hint="give one teacher no routes: it takes the rest of the rows",
            )
        return [teacher]


def route_of(row: Row, field: str) -> str | None:
    """The value of a field such as meta.topic or meta.source.kind as text; None where the row has none."""
    value: object = {"meta": row.meta}
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None
