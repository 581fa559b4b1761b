"""`potstill journal`: whether the journals of a run are whole, what they hold, and how they become smaller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Cli, assert_told
from potstill.inference.completion import completion_body
from potstill.inference.journal import Journal
from potstill.inference.protocol import RawReply
from potstill.rows import content_hash


@pytest.fixture
def run(work: Path) -> Path:
    """A run with two journals: of three requests one was answered at once, one later, and one never."""
    folder = work / "runs" / "mine"
    with Journal(folder / "journal" / "generate") as journal:
        for number in range(3):
            journal.append_intent(content_hash(number), {"attempt": 1})
        journal.append_outcome(content_hash(0), RawReply(200, completion_body("yes", "stop", 7, 1), 0.1))
        journal.append_outcome(content_hash(1), RawReply(429, b"{}", 0.1))
        journal.append_intent(content_hash(1), {"attempt": 2})
        journal.append_failure(content_hash(1), "the connection broke")
        journal.append_intent(content_hash(1), {"attempt": 3})
        journal.append_outcome(content_hash(1), RawReply(200, completion_body("no", "stop", 7, 2), 0.1))
    with Journal(folder / "journal" / "evaluate" / "teacher") as journal:
        journal.append_intent(content_hash(9), {"attempt": 1})
    return folder


def test_whole_journals_are_said_to_be_so(cli: Cli, run: Path) -> None:
    done = cli("journal", "verify", str(run))
    assert done.code == 0
    assert [line.split(" records")[0] for line in done.out.splitlines()] == ["evaluate/teacher: whole, 1", "generate: whole, 9"]
    assert json.loads(cli("journal", "verify", str(run), "--json").out)["generate"]["records"] == 9


def test_a_torn_end_is_told_and_is_no_damage(cli: Cli, run: Path) -> None:
    with (run / "journal" / "generate" / "000001.seg").open("ab") as file:
        file.write(b"\xf5REC and no more")
    done = cli("journal", "verify", str(run))
    assert done.code == 0
    assert "16 bytes of a torn end" in done.out


def test_the_first_damaged_record_is_named(cli: Cli, run: Path) -> None:
    segment = run / "journal" / "generate" / "000001.seg"
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b'"yes"', b'"yEs"'))
    start = data.rindex(b"\xf5REC", 0, data.index(b'"yes"'))
    for command in ("verify", "stats", "compact"):
        assert_told(cli("journal", command, str(run)), "a record of the journal is damaged", f"000001.seg, byte {start}")
    assert json.loads(cli("journal", "verify", str(run), "--json").out)["error"] == "CorruptFileError"


def test_the_counts(cli: Cli, run: Path) -> None:
    counts = json.loads(cli("journal", "stats", str(run), "--json").out)
    generate = counts["generate"]
    assert {key: generate[key] for key in ("requests", "answered", "attempts", "unresolved", "records", "segments")} == {
        "requests": 3, "answered": 2, "attempts": 5, "unresolved": 1, "records": 9, "segments": 1,
    }
    assert generate["statuses"] == {"200": 2, "429": 1}
    assert generate["reasons"] == {"the connection broke": 1}
    assert (generate["input_tokens"], generate["output_tokens"], generate["uncounted"]) == (14, 3, 0)
    assert generate["bytes"] == (run / "journal" / "generate" / "000001.seg").stat().st_size
    assert generate["first_at"] <= generate["last_at"]
    shown = cli("journal", "stats", str(run)).out
    assert "3, of which 2 have a reply" in shown
    assert "status 200: 2, status 429: 1" in shown
    assert "14 read, 3 written" in shown


def test_compacting_keeps_replies_and_counts(cli: Cli, run: Path) -> None:
    before = json.loads(cli("journal", "stats", str(run), "--json").out)
    done = json.loads(cli("journal", "compact", str(run), "--json").out)
    assert done["generate"]["bytes_after"] < done["generate"]["bytes_before"]
    after = json.loads(cli("journal", "stats", str(run), "--json").out)
    for key in ("requests", "answered", "attempts", "unresolved", "statuses", "reasons", "output_tokens"):
        assert after["generate"][key] == before["generate"][key]
    with Journal(run / "journal" / "generate") as journal:
        kept = journal.reply(content_hash(1))
        assert kept is not None
        assert b"no" in kept.body
    assert "bytes to" in cli("journal", "compact", str(run)).out


def test_a_run_at_work_is_read_and_not_compacted(cli: Cli, run: Path) -> None:
    with Journal(run / "journal" / "generate"):
        assert cli("journal", "verify", str(run)).code == 0
        assert cli("journal", "stats", str(run)).code == 0
        assert_told(cli("journal", "compact", str(run)), "another process", code=2)


def test_what_is_no_run_is_said(cli: Cli, work: Path) -> None:
    (work / "empty").mkdir()
    for folder in ("nowhere", "empty"):
        for command in ("verify", "stats", "compact"):
            assert_told(cli("journal", command, folder), "there is no journal here", folder, code=2)
            assert json.loads(cli("journal", command, folder, "--json").out)["where"] == folder
    assert list((work / "empty").iterdir()) == []
