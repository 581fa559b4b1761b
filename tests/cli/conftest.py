"""The command line inside the test's own process, in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from potstill.cli import main


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs `potstill` with these arguments; an exception that is no exit fails the test, as a traceback should."""

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["potstill", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return Result(int(end.value.code or 0), out, err)

    return call


def last_error(shown: str) -> list[str]:
    """The lines of the error, after what was told on the way."""
    assert "Traceback" not in shown
    return ("\n" + shown).rpartition("\nerror: ")[2].splitlines()


def assert_told(done: Result, *parts: str, code: int = 1) -> None:
    lines = last_error(done.err)
    assert (done.code, done.out) == (code, "")
    assert 2 <= len(lines) <= 6, lines
    assert all(any(part in line for line in lines) for part in parts), lines
