"""Write a journal anew with what matters of it: the good replies, the last word on requests without one, and all sums.

What goes in: a journal that nobody has open. What comes out: one segment in place of all; every good reply is as it was, and so
are the spending and the counts, for the records that are gone have left sums of themselves. What it costs: the journal is read
three times, and lies on the disk twice for a while. The new segment is written under another name, synced and renamed, and only
then are the old ones deleted: a process killed at any moment leaves the old journal whole, or the new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import fsync
from pathlib import Path
from typing import Any

from potstill.inference.disk import sync_folder, take_lock, unwritable
from potstill.inference.journal_report import Tally
from potstill.inference.key_index import KeyIndex, place_of
from potstill.inference.segments import STANDS_ALONE, Record, encode, find_segments, scan_journal, segment_path
from potstill.inference.spending import Cost, Spending, Sum

_NEW = "compacting.tmp"
_MAY_GO = ("intent", "outcome", "failure", "spent", "taken")  # whatever else is noted stays


@dataclass(frozen=True, slots=True)
class Compaction:
    """What it brought."""

    bytes_before: int
    bytes_after: int
    records_before: int
    records_after: int


def compact_journal(folder: Path) -> Compaction:
    """Compact a journal.

    Raises:
        RunLockedError: somebody has it open.
        CorruptFileError: it is damaged; nothing is changed then.
        MachineError: it cannot be read or written.
    """
    with take_lock(folder):
        numbers, left_behind = find_segments(folder)
        if not numbers:
            return Compaction(0, 0, 0, 0)
        old = [segment_path(folder, number) for number in (*left_behind, *numbers)]
        before = sum(path.stat().st_size for path in old)
        plan = _Plan(folder)
        try:
            kept = _write(folder / _NEW, plan.records(folder))
            new = (folder / _NEW).replace(segment_path(folder, numbers[-1] + 1))
            sync_folder(folder)
            for path in old:
                path.unlink()
            sync_folder(folder)
        except OSError as error:
            raise unwritable(folder, error) from error
        return Compaction(before, new.stat().st_size, plan.stored, kept)


class _Plan:
    """Which records stay, and the sums of the others: found by a first reading."""

    def __init__(self, folder: Path) -> None:
        self.stored = 0
        self._good, self._ended = KeyIndex(), KeyIndex()
        self._open: dict[str, int] = {}
        self._spending = Spending()
        for number, record in scan_journal(folder):
            self.stored += 1
            self._note(record.note, place_of(number, record.offset))

    def _note(self, note: dict[str, Any], place: int) -> None:
        self._spending.note(note)
        if note["kind"] == "intent":
            self._open[note["key"]] = place
        elif note["kind"] in ("outcome", "failure"):
            self._open.pop(note["key"], None)
            (self._good if note.get("status") == 200 else self._ended).put(note["key"], place)

    def records(self, folder: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The new journal: the sums, then what stays in its order."""
        places = set(self._open.values())
        tally, held_back = Tally(), Spending()
        for number, record in scan_journal(folder):
            if not self._stays(record, place_of(number, record.offset), places):
                tally.add(record)
            elif record.note["kind"] == "intent":
                held_back.note(record.note)
        del tally.records["spent"]
        yield tally.as_note(), b""
        yield from ((note, b"") for note in _spent(self._spending, held_back))
        for number, record in scan_journal(folder):
            if self._stays(record, place_of(number, record.offset), places):
                yield record.note, record.body

    def _stays(self, record: Record, place: int, unresolved: set[int]) -> bool:
        note = record.note
        if note["kind"] not in ("outcome", "failure"):
            return place in unresolved or note["kind"] not in _MAY_GO
        return place == (self._good.get(note["key"]) or self._ended.get(note["key"]))


def _spent(spending: Spending, held_back: Spending) -> Iterator[dict[str, Any]]:
    """Records that add up to what was spent, but for the intents that stay and count by themselves."""
    if spending.beyond != (0, 0):
        yield {"kind": "spent", "price": {**Cost().as_dict(), "beyond": spending.beyond}, "known": True}
    known, rest = spending.known, Sum()
    for sum_, sign in ((spending.total, 1), (known, -1), (held_back.total, -1)):
        rest.tokens += sign * sum_.tokens
        rest.picodollars += sign * sum_.picodollars
        rest.unpriced_input_tokens += sign * sum_.unpriced_input_tokens
        rest.unpriced_output_tokens += sign * sum_.unpriced_output_tokens
    for part, is_known in ((known, True), (rest, False)):
        unpriced = Cost(part.unpriced_input_tokens, part.unpriced_output_tokens, None)
        priced = Cost(part.tokens - unpriced.tokens, 0, part.picodollars)
        for cost in (priced, unpriced):
            if cost.tokens or cost.picodollars:
                yield {"kind": "spent", "price": cost.as_dict(), "known": is_known}


def _write(path: Path, records: Iterator[tuple[dict[str, Any], bytes]]) -> int:
    count = 0
    with path.open("wb") as file:
        file.write(STANDS_ALONE)
        for note, body in records:
            file.write(encode(note, body))
            count += 1
        file.flush()
        fsync(file.fileno())
    return count
