"""A compacted journal has the same replies, the same spending and the same counts; and is never half there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from potstill.errors import CorruptFileError, RunLockedError
from potstill.inference import compaction
from potstill.inference.compaction import compact_journal
from potstill.inference.completion import completion_body
from potstill.inference.journal import Journal, JournalStats
from potstill.inference.journal_report import report_journal
from potstill.inference.protocol import RawReply
from potstill.inference.segments import find_segments, segment_path
from potstill.inference.spending import Cost, Sum, read_spending
from potstill.rows import content_hash

KEYS = [content_hash(number) for number in range(60)]
SMALL = 2_000


def good(number: int) -> RawReply:
    return RawReply(200, completion_body(f"reply {number}", "stop", 10, 3), 0.5)


def price(usd: float | None) -> dict[str, object]:
    return Cost(10, 5, None if usd is None else round(usd * 10**12)).as_dict()


def fill(folder: Path, count: int = 40) -> None:
    """All that can be in a journal: answers, refusals, failures, replaced replies, deaths, prices known and not."""
    with Journal(folder, segment_bytes=SMALL) as journal:
        for number in range(count):
            key, known = KEYS[number], None if number % 3 == 0 else 0.001 * number
            if number % 4 == 0:
                journal.append_intent(key, {"attempt": 1}, price=price(known))
                journal.append_failure(key, "the connection broke", price=None if number % 8 else price(known))
            if number % 5 == 0:
                journal.append_intent(key, {"attempt": 2}, price=price(known))
                journal.append_outcome(key, RawReply(429, b"slow down", 0.1, 1.0), price=Cost().as_dict())
            if number % 7 == 0:  # the process died; it is asked again below
                journal.append_intent(key, {"attempt": 3}, price=price(0.5))
            if number % 6 == 0:
                journal.append_intent(key, {"attempt": 4}, price=price(0.5))
                journal.append_outcome(key, RawReply(200, b"no answer", 0.1), price=price(0.25))
            journal.append_intent(key, {"attempt": 5}, price=price(known))
            if number % 9:
                journal.append_outcome(key, good(number), price=price(known and known / 2))
        journal.append_intent(KEYS[40], {"attempt": 1})


def replies(folder: Path) -> list[RawReply | None]:
    with Journal(folder, segment_bytes=SMALL) as journal:
        return [journal.reply(key) for key in KEYS]


def sums(folder: Path) -> tuple[Sum, Sum, JournalStats]:
    spending = read_spending(folder)
    with Journal(folder, segment_bytes=SMALL) as journal:
        assert (journal.spending.total, journal.spending.known) == (spending.total, spending.known)
        return spending.total, spending.known, journal.stats()


def test_replies_spending_and_counts_are_as_before_and_the_files_are_smaller(tmp_path: Path) -> None:
    fill(tmp_path)
    before, replies_before, report_before = sums(tmp_path), replies(tmp_path), report_journal(tmp_path)
    done = compact_journal(tmp_path)
    assert sums(tmp_path) == before
    assert replies(tmp_path) == replies_before
    after = report_journal(tmp_path).as_dict()
    changing = {"segments", "bytes", "records"}
    assert {key: value for key, value in after.items() if key not in changing} == {
        key: value for key, value in report_before.as_dict().items() if key not in changing
    }
    assert (report_before.segments, after["segments"]) == (len(range(report_before.segments)), 1)
    assert report_before.segments > 5
    assert done.bytes_after < done.bytes_before / 2
    assert done.records_after < done.records_before / 2


def test_compacting_twice_changes_nothing_more(tmp_path: Path) -> None:
    fill(tmp_path)
    compact_journal(tmp_path)
    before = sums(tmp_path), replies(tmp_path), report_journal(tmp_path).tally
    compact_journal(tmp_path)
    assert (sums(tmp_path), replies(tmp_path), report_journal(tmp_path).tally) == before


def test_a_compacted_journal_is_written_on(tmp_path: Path) -> None:
    fill(tmp_path)
    compact_journal(tmp_path)
    before = read_spending(tmp_path).total.tokens
    with Journal(tmp_path, segment_bytes=SMALL) as journal:
        for number in range(41, 60):
            journal.append_intent(KEYS[number], {}, price=price(1.0))
            journal.append_outcome(KEYS[number], good(number), price=price(1.0))
    assert [reply is not None for reply in replies(tmp_path)[41:]] == [True] * 19
    assert read_spending(tmp_path).total.tokens == before + 19 * 15


def test_records_of_a_kind_that_compaction_does_not_know_stay(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal._append({"kind": "batch", "at": 1.0, "id": "batch_1"}, b"body")
    compact_journal(tmp_path)
    kept = [record for _, record in compaction.scan_journal(tmp_path) if record.note["kind"] == "batch"]
    assert [(record.note["id"], record.body) for record in kept] == [("batch_1", b"body")]


def test_one_that_is_open_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path)
    with Journal(tmp_path, segment_bytes=SMALL), pytest.raises(RunLockedError):
        compact_journal(tmp_path)


def test_a_damaged_one_is_left_as_it_is(tmp_path: Path) -> None:
    fill(tmp_path)
    path = tmp_path / "000002.seg"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    names = sorted(file.name for file in tmp_path.iterdir())
    with pytest.raises(CorruptFileError, match=r"000002\.seg"):
        compact_journal(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    assert path.read_bytes() == bytes(data)


class Killed(BaseException):
    """The process is gone: nothing after this instant is done."""


def moments(monkeypatch: pytest.MonkeyPatch, until: int) -> Iterator[str]:
    """Let each thing done to the disk count, and die before the one with this number."""
    done: list[str] = []

    def count(name: str) -> None:
        if len(done) == until:
            raise Killed(name)
        done.append(name)

    encode, fsync, replace, unlink = compaction.encode, compaction.fsync, Path.replace, Path.unlink
    monkeypatch.setattr(compaction, "encode", lambda *record: (count("write"), encode(*record))[1])
    monkeypatch.setattr(compaction, "fsync", lambda file: (count("fsync"), fsync(file))[1])
    monkeypatch.setattr(Path, "replace", lambda path, target: (count("replace"), replace(path, target))[1])
    monkeypatch.setattr(Path, "unlink", lambda path, **options: (count("unlink"), unlink(path, **options))[1])
    return iter(done)


def test_killed_at_any_moment_the_old_or_the_new_journal_is_whole(tmp_path: Path) -> None:
    fill(tmp_path / "whole", 12)
    before = sums(tmp_path / "whole"), replies(tmp_path / "whole")
    ended, moment = False, 0
    segments: set[int] = set()
    while not ended:
        folder = tmp_path / f"killed-{moment}"
        folder.mkdir()
        for path in (tmp_path / "whole").glob("*.seg"):
            (folder / path.name).write_bytes(path.read_bytes())
        with pytest.MonkeyPatch.context() as patched:
            moments(patched, moment)
            try:
                compact_journal(folder)
                ended = True
            except Killed:
                pass
        segments.add(len(find_segments(folder)[0]))
        assert read_spending(folder).total == before[0][0]
        assert (sums(folder), replies(folder)) == before
        compact_journal(folder)
        assert (sums(folder), replies(folder)) == before
        assert [path.name for path in folder.glob("*.seg")] == [segment_path(folder, find_segments(folder)[0][0]).name]
        moment += 1
    assert segments == {1, len(list((tmp_path / "whole").glob("*.seg")))}
    assert moment > 20
