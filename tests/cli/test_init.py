"""`potstill init`: what it prints, and that it overwrites nothing."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from cli.conftest import Cli
from potstill.spec import TaskName


@pytest.mark.usefixtures("embedded_gguf")
@pytest.mark.parametrize("task", get_args(TaskName))
def test_what_init_writes_passes_check(cli: Cli, work: Path, task: str) -> None:
    done = cli("init", task)
    assert done.code == 0
    assert done.out.startswith(f"wrote {task}.yaml and {task}.jsonl\n")
    assert done.out.rstrip().endswith(f"potstill check {task}.yaml")
    checked = cli("check", f"{task}.yaml")
    assert checked.code == 0, checked.out
    assert "nothing to pay" in checked.out


def test_a_folder_is_made(cli: Cli, work: Path) -> None:
    assert cli("init", "qa", "--to", "new/place").code == 0
    assert (work / "new" / "place" / "qa.yaml").is_file()


@pytest.mark.parametrize("name", ["math.yaml", "math.jsonl"])
def test_existing_files_are_never_overwritten(cli: Cli, work: Path, name: str) -> None:
    (work / name).write_text("mine")
    done = cli("init", "math")
    assert (done.code, done.out) == (2, "")
    assert "exists already" in done.err
    assert f"where: {name}" in done.err
    assert {path.name: path.read_text() for path in work.iterdir()} == {name: "mine"}


def test_an_unknown_task_is_told_the_list(cli: Cli, work: Path) -> None:
    done = cli("init", "poetry")
    assert done.code == 2
    assert f"expected: {', '.join(get_args(TaskName))}" in done.err
    assert list(work.iterdir()) == []


def test_a_file_is_no_folder(cli: Cli, work: Path) -> None:
    (work / "taken").write_text("mine")
    done = cli("init", "nli", "--to", "taken")
    assert (done.code, done.err.splitlines()[0]) == (2, "error: this is a file, not a folder")
