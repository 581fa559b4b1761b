"""What is known of the terms under which a teacher's answers may be used to train another model.

A note points to terms; it does not stand for them, and is no advice. Terms change, and whoever has a contract has other ones.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from potstill.catalog.lookup import our_entry
from potstill.catalog.model import ResolvedModel
from potstill.spec import Section
from potstill.yaml_files import read_mapping

_OURS = Path(__file__).with_name("terms.yaml")
_UNKNOWN = "what its answers may be used for is in the terms of the endpoint; some forbid training models that compete with it"


@dataclass(frozen=True, slots=True)
class Terms:
    """A note on terms, with the page that has them and the day they were looked up (ISO date); both None where not known."""

    note: str
    source: str | None = None
    date: str | None = None

    def __str__(self) -> str:
        told = f"{self.note}; read them"
        return told if self.source is None else f"{told}: {self.source} (looked up on {self.date})"


class _Entry(Section):
    """What terms.yaml has under each name, with the endpoints and the licences that it is about."""

    note: str
    source: str
    date: datetime.date
    hosts: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()


def terms_of(model: ResolvedModel) -> Terms | None:
    """What is known of a model's terms: by its endpoint, by its vendor's where it is reached through another endpoint but has a
    name of the catalogue, or by its licence. None for a model on this machine, or of the hub, of which nothing is known.
    """
    hosts = {_host(model.endpoint)}
    if model.kind == "endpoint":
        known = [our_entry(name) for name in (model.name, model.model) if name is not None]
        hosts |= {_host(entry.endpoint) for entry in known if entry is not None}
    for entry in _entries():
        if hosts.intersection(entry.hosts) or (model.license or "").casefold() in entry.licenses:
            return Terms(entry.note, entry.source, entry.date.isoformat())
    return Terms(_UNKNOWN) if model.kind == "endpoint" else None


def _host(endpoint: str | None) -> str | None:
    return urlsplit(endpoint).hostname if endpoint else None


@cache
def _entries() -> tuple[_Entry, ...]:
    data = read_mapping(_OURS, what="the list of terms", expected="name: {note: ..., source: ..., date: ...}")
    return tuple(_Entry.model_validate(value) for value in data.values())
