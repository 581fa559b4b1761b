"""The journal keeps what it was given: through kills, torn ends and restarts; and says where it is damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from potstill.errors import CorruptFileError, MachineError, RunLockedError
from potstill.inference.journal import Journal, JournalStats
from potstill.inference.protocol import RawReply
from potstill.inference.segments import MAGIC
from potstill.rows import content_hash

KEYS = [content_hash(number) for number in range(200)]


def fill(folder: Path, count: int, *, segment_bytes: int = 2**26) -> None:
    with Journal(folder, segment_bytes=segment_bytes) as journal:
        for number in range(count):
            journal.append_intent(KEYS[number], {"attempt": 1})
            journal.append_outcome(KEYS[number], RawReply(200, f"reply {number}".encode(), 0.5))


def test_a_reply_comes_back_byte_for_byte(tmp_path: Path) -> None:
    body = bytes(range(256)) * 3 + b'{"not json'
    with Journal(tmp_path) as journal:
        journal.append_outcome(KEYS[0], RawReply(200, body, 1.25, 3.0))
        assert journal.reply(KEYS[0]) == RawReply(200, body, 1.25, 3.0)
    with Journal(tmp_path) as journal:
        assert journal.reply(KEYS[0]) == RawReply(200, body, 1.25, 3.0)
        assert journal.reply(KEYS[1]) is None


def test_the_last_good_reply_counts_and_a_refusal_is_none(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append_outcome(KEYS[0], RawReply(429, b"wait", 0.1))
        assert journal.reply(KEYS[0]) is None
        journal.append_outcome(KEYS[0], RawReply(200, b"broken", 0.1))
        journal.append_outcome(KEYS[0], RawReply(200, b"good", 0.1))
        journal.append_outcome(KEYS[0], RawReply(500, b"oops", 0.1))
        assert journal.reply(KEYS[0]) == RawReply(200, b"good", 0.1)


def test_attempts_are_counted_across_restarts(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append_intent(KEYS[0], {}, price={"usd": 0.01})
        journal.append_failure(KEYS[0], "cut off")
        journal.append_intent(KEYS[0], {})
        journal.append_outcome(KEYS[0], RawReply(200, b"good", 0.1), price={"usd": 0.004})
        journal.append_intent(KEYS[1], {})
    with Journal(tmp_path) as journal:
        assert journal.stats() == JournalStats(intents=3, outcomes=1, failures=1)
        assert journal.stats().unresolved == 1


def test_many_segments_read_like_one(tmp_path: Path) -> None:
    fill(tmp_path, 100, segment_bytes=2000)
    assert len(list(tmp_path.glob("*.seg"))) > 5
    with Journal(tmp_path, segment_bytes=2000) as journal:
        assert [journal.reply(key) for key in KEYS[:100]] == [RawReply(200, f"reply {n}".encode(), 0.5) for n in range(100)]
        assert journal.stats() == JournalStats(100, 100, 0)


def test_a_second_opener_is_kept_out_until_the_first_closes(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(RunLockedError, match="another process"):
        Journal(tmp_path)
    Journal(tmp_path).close()


def test_a_torn_end_is_cut_off_at_any_byte(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    fill(whole, 2)
    before = (whole / "000001.seg").stat().st_size
    with Journal(whole) as journal:
        journal.append_outcome(KEYS[2], RawReply(200, b"the last reply", 0.5))
    data = (whole / "000001.seg").read_bytes()
    torn = tmp_path / "torn"
    torn.mkdir()
    for end in range(before, len(data)):
        (torn / "000001.seg").write_bytes(data[:end])
        with Journal(torn) as journal:
            assert journal.reply(KEYS[2]) is None
            assert journal.reply(KEYS[1]) == RawReply(200, b"reply 1", 0.5)
            journal.append_outcome(KEYS[3], RawReply(200, b"after", 0.5))
        with Journal(torn) as journal:
            assert journal.reply(KEYS[3]) == RawReply(200, b"after", 0.5)
            assert journal.stats() == JournalStats(2, 3, 0)


@pytest.mark.parametrize("end", range(len(MAGIC)))
def test_a_file_torn_before_its_first_record_starts_anew(tmp_path: Path, end: int) -> None:
    (tmp_path / "000001.seg").write_bytes(MAGIC[:end])
    with Journal(tmp_path) as journal:
        journal.append_outcome(KEYS[0], RawReply(200, b"first", 0.5))
    with Journal(tmp_path) as journal:
        assert journal.reply(KEYS[0]) == RawReply(200, b"first", 0.5)


def test_an_end_of_zeros_as_a_power_loss_leaves_it_is_cut_off(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    segment = tmp_path / "000001.seg"
    size = segment.stat().st_size
    segment.write_bytes(segment.read_bytes() + bytes(4096))
    with Journal(tmp_path) as journal:
        assert journal.stats() == JournalStats(3, 3, 0)
    assert segment.stat().st_size == size


def test_damage_before_a_whole_record_is_named_and_nothing_is_cut(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    segment = tmp_path / "000001.seg"
    data = bytearray(segment.read_bytes())
    for position in range(len(MAGIC), len(data) // 2, 7):
        damaged = bytearray(data)
        damaged[position] ^= 0x40
        segment.write_bytes(damaged)
        with pytest.raises(CorruptFileError) as raised:
            Journal(tmp_path)
        assert "000001.seg, byte " in str(raised.value.where)
        assert segment.read_bytes() == bytes(damaged)


def test_a_torn_end_of_an_earlier_segment_is_damage(tmp_path: Path) -> None:
    fill(tmp_path, 50, segment_bytes=2000)
    first = tmp_path / "000001.seg"
    first.write_bytes(first.read_bytes()[:-3])
    with pytest.raises(CorruptFileError):
        Journal(tmp_path)


def test_damage_after_opening_is_noticed_when_the_reply_is_read(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    segment = tmp_path / "000001.seg"
    with Journal(tmp_path) as journal:
        data = segment.read_bytes()
        with segment.open("r+b") as file:
            file.seek(data.index(b"reply 0"))
            file.write(b"REPLY")
        with pytest.raises(CorruptFileError):
            journal.reply(KEYS[0])


def test_a_full_disk_is_the_machines_fault_and_leaves_whole_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write

    def write_half_then_fail(file: int, data: bytes) -> int:
        if len(data) > 5000:
            return real_write(file, data[:5000])
        raise OSError(28, "No space left on device")

    with Journal(tmp_path) as journal:
        journal.append_outcome(KEYS[0], RawReply(200, b"kept", 0.5))
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", write_half_then_fail)
            with pytest.raises(MachineError, match="No space left"):
                journal.append_outcome(KEYS[1], RawReply(200, b"x" * 8000, 0.5))
        journal.append_outcome(KEYS[2], RawReply(200, b"kept too", 0.5))
    with Journal(tmp_path) as journal:
        assert [journal.reply(key) is not None for key in KEYS[:3]] == [True, False, True]


APPENDER = """
import sys
from pathlib import Path
from potstill.inference.journal import Journal
from potstill.inference.protocol import RawReply
from potstill.rows import content_hash
journal = Journal(Path(sys.argv[1]), segment_bytes=20_000)
for number in range(1_000_000):
    key = content_hash(number)
    journal.append_intent(key, {})
    journal.append_outcome(key, RawReply(200, b"reply %d" % number, 0.5))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_a_killed_process_loses_no_reply_it_was_given(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    handed_over = 0
    for line in process.stdout:
        handed_over = int(line)
        if handed_over >= 700:
            process.send_signal(signal.SIGKILL)
            break
    handed_over = max([handed_over, *(int(line) for line in process.stdout if line.endswith(b"\n"))])
    process.wait(10)
    with Journal(tmp_path) as journal:
        for number in range(handed_over + 1):
            assert journal.reply(content_hash(number)) == RawReply(200, b"reply %d" % number, 0.5)
        assert journal.stats().unresolved in (0, 1)
