"""What a journal holds: counted from every record of it, each with its checksum looked at.

What goes in: a journal's folder, which may be in use. What comes out: counts, or the place of the first damage. What it costs:
one reading of all its bytes; memory for an entry a key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.inference.key_index import KeyIndex, place_of
from potstill.inference.segments import Record, find_segments, scan_journal, segment_path
from potstill.inference.spending import PICODOLLARS, Spending, used_tokens


@dataclass(slots=True)
class Tally:
    """Records counted, as a compaction writes them down of those it takes out.

    records: by kind. statuses: outcomes by status. reasons: failures by what happened. input_tokens, output_tokens: of replies
    with status 200, by their own count; uncounted: those that have none. first_at, last_at: seconds since 1970.
    """

    records: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted: int = 0
    first_at: float | None = None
    last_at: float | None = None

    def add(self, record: Record) -> None:
        """Count one record; one that stands for others that were taken out counts as they did."""
        note = record.note
        if note["kind"] == "taken":
            self._add_taken(note)
            return
        self.records[note["kind"]] += 1
        self._add_time(note.get("at"), note.get("at"))
        if note["kind"] == "outcome":
            self.statuses[str(note["status"])] += 1
            if note["status"] == 200:
                self._add_tokens(record.body)
        elif note["kind"] == "failure":
            self.reasons[note["why"]] += 1

    def as_note(self) -> dict[str, Any]:
        """A record of kind "taken"."""
        return {"kind": "taken", "records": dict(self.records), **self.details()}

    def details(self) -> dict[str, Any]:
        """All but the numbers of records, for JSON."""
        return {
            "statuses": dict(self.statuses), "reasons": dict(self.reasons), "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens, "uncounted": self.uncounted, "first_at": self.first_at,
            "last_at": self.last_at,
        }

    def _add_taken(self, note: Mapping[str, Any]) -> None:
        for name in ("records", "statuses", "reasons"):
            getattr(self, name).update(note[name])
        self.input_tokens += note["input_tokens"]
        self.output_tokens += note["output_tokens"]
        self.uncounted += note["uncounted"]
        self._add_time(note["first_at"], note["last_at"])

    def _add_time(self, first_at: float | None, last_at: float | None) -> None:
        if first_at is not None:
            self.first_at = first_at if self.first_at is None else min(self.first_at, first_at)
        if last_at is not None:
            self.last_at = last_at if self.last_at is None else max(self.last_at, last_at)

    def _add_tokens(self, body: bytes) -> None:
        used = used_tokens(body)
        if used is None:
            self.uncounted += 1
        else:
            self.input_tokens, self.output_tokens = self.input_tokens + used[0], self.output_tokens + used[1]


@dataclass(frozen=True, slots=True)
class JournalReport:
    """One journal. requests: different keys. answered: those with a reply of status 200. torn_bytes: of the end that a killed
    process left behind, and that the next one cuts off. The spending is in tokens and dollars, as a budget counts them."""

    segments: int
    bytes: int
    torn_bytes: int
    stored: int
    requests: int
    answered: int
    tally: Tally
    spent_tokens: int
    spent_usd: float

    @property
    def unresolved(self) -> int:
        """Requests that were sent and of which nothing is known: the process died."""
        records = self.tally.records
        return records["intent"] - records["outcome"] - records["failure"]

    def as_dict(self) -> dict[str, Any]:
        """For a program."""
        return {
            "segments": self.segments, "bytes": self.bytes, "torn_bytes": self.torn_bytes, "records": self.stored,
            "requests": self.requests, "answered": self.answered, "attempts": self.tally.records["intent"],
            "unresolved": self.unresolved, **self.tally.details(),
            "spent_tokens": self.spent_tokens, "spent_usd": self.spent_usd,
        }


def report_journal(folder: Path) -> JournalReport:
    """Read a journal from end to end.

    Raises:
        CorruptFileError: names the first record that is damaged.
        MachineError: it cannot be read.
    """
    tally, spending = Tally(), Spending()
    keys, good = KeyIndex(), KeyIndex()
    numbers, _ = find_segments(folder)
    stored, ends = 0, dict.fromkeys(numbers, 0)
    for number, record in scan_journal(folder):
        note = record.note
        tally.add(record)
        spending.note(note)
        stored, ends[number] = stored + 1, record.end
        if "key" in note:
            place = place_of(number, record.offset)
            keys.put(note["key"], place)
            if note.get("status") == 200:
                good.put(note["key"], place)
    sizes = {number: segment_path(folder, number).stat().st_size for number in numbers}
    torn = sizes[numbers[-1]] - ends[numbers[-1]] if stored and ends.get(numbers[-1]) else 0
    tokens, picodollars = spending.total.at(None)
    return JournalReport(
        segments=len(numbers), bytes=sum(sizes.values()), torn_bytes=torn, stored=stored, requests=len(keys),
        answered=len(good), tally=tally, spent_tokens=tokens, spent_usd=picodollars / PICODOLLARS,
    )
