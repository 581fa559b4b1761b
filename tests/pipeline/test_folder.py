"""The run folder: one process at a time, free at once when it dies, and files that are whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from potstill.errors import MachineError, RunLockedError
from potstill.pipeline.folder import RunFolder, write_json, write_text

HOLD = """
import sys, time
from pathlib import Path
from potstill.pipeline.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "job")


@pytest.fixture
def holder(folder: RunFolder) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused(folder: RunFolder, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(RunLockedError, match="another process") as error, folder.locked():
        pytest.fail("both hold it")
    assert (error.value.exit_code, error.value.where) == (2, str(folder.root))


def test_a_killed_process_frees_it_at_once(folder: RunFolder, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    with folder.locked():
        assert folder.root.is_dir()


def test_whether_somebody_is_at_work_is_seen_from_outside(folder: RunFolder, holder: subprocess.Popen[str]) -> None:
    assert folder.is_held()
    holder.kill()
    holder.wait()
    assert not folder.is_held()
    assert not RunFolder(folder.root / "nowhere").is_held()


def test_many_who_look_do_not_keep_each_other_or_a_worker_away(folder: RunFolder) -> None:
    folder.root.mkdir(parents=True)
    looks: list[bool] = []
    watchers = [threading.Thread(target=lambda: looks.extend(folder.is_held() for _ in range(50))) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    for _ in range(20):
        with RunFolder(folder.root).locked():
            pass
    for watcher in watchers:
        watcher.join()
    assert len(looks) == 200


def test_its_holder_may_hold_it_once_more(folder: RunFolder) -> None:
    with folder.locked():
        with RunFolder(folder.root).locked():
            pass
        assert folder.is_held()
    assert not folder.is_held()


def test_it_is_free_again_after_an_error_inside(folder: RunFolder) -> None:
    with pytest.raises(ZeroDivisionError), folder.locked():
        _ = 1 // 0
    with folder.locked():
        pass


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere, and so may Windows")
def test_a_folder_that_may_not_be_written(folder: RunFolder) -> None:
    folder.root.mkdir(parents=True)
    folder.root.chmod(0o500)
    with pytest.raises(MachineError, match="cannot be written"), folder.locked():
        pytest.fail("nothing could be written here")


def test_a_file_where_the_folder_should_be(folder: RunFolder) -> None:
    folder.root.parent.mkdir()
    folder.root.write_text("a file")
    with pytest.raises(MachineError, match="cannot be written") as error, folder.locked():
        pytest.fail("there is no folder")
    assert (error.value.exit_code, error.value.where) == (1, str(folder.root))


def test_paths_are_told_relative_to_the_run(folder: RunFolder) -> None:
    assert folder.relative(folder.rows / "train.jsonl") == "rows/train.jsonl"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    write_text(path, "first: é\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "second, and then what UTF-8 cannot hold: \ud800")
    assert path.read_text(encoding="utf-8") == "first: é\n"
    write_json(path, {"b": 1, "a": [0.5]})
    assert orjson.loads(path.read_bytes()) == {"b": 1, "a": [0.5]}
    assert path.read_text().count("\n") > 2


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the rename the old content stands there."""
    path = tmp_path / "report.json"
    write_text(path, "old")
    seen: list[str] = []
    rename = Path.replace

    def look_and_rename(source: Path, target: Path) -> Path:
        seen.append(path.read_text())
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", look_and_rename)
    write_text(path, "new")
    assert (seen, path.read_text()) == (["old"], "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]
