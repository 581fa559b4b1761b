"""What a person sees of a long step, on a terminal and without one."""

from __future__ import annotations

import io
import re
import sys

import pytest

from potstill.cli.console import Bars, console_progress
from potstill.pipeline.lines import Lines, format_seconds
from potstill.pipeline.progress import Silent


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def take_stderr(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal in place of stderr; pytest puts its own stream there before each phase of a test, so no fixture can."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return screen


def test_where_a_command_reports_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(console_progress(quiet=True), Silent)
    assert isinstance(console_progress(quiet=False), Lines)


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    take_stderr(monkeypatch)
    assert isinstance(console_progress(quiet=False), Bars)
    assert isinstance(console_progress(quiet=True), Silent)


def test_lines_tell_label_count_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(interval_s=0.0)
    lines.begin("the teacher answers", 4)
    lines.update(1, detail="first row")
    lines.update(3)
    lines.end()
    out, err = capsys.readouterr()
    assert out == ""
    shown = err.splitlines()
    assert shown[0] == "the teacher answers ..."
    assert re.fullmatch(r"the teacher answers: 1/4, [\d.]+/s, \d+ s left; first row", shown[1])
    assert re.fullmatch(r"the teacher answers: 3/4, [\d.]+/s, \d+ s left", shown[2])
    assert shown[3] == "the teacher answers: 3 in 0 s"


def test_the_time_left_follows_from_the_rate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("potstill.pipeline.lines.time.monotonic", lambda: next(clock))
    lines = Lines(interval_s=10.0)
    lines.begin("training", 100)
    lines.update(20)
    assert capsys.readouterr().err.splitlines()[-1] == "training: 20/100, 2.00/s, 40 s left"


def test_lines_keep_quiet_between(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(interval_s=3600.0)
    lines.begin("training", 1000)
    for step in range(1000):
        lines.update(step)
    assert capsys.readouterr().err == "training ...\n"


def test_lines_without_a_total_promise_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(interval_s=0.0)
    lines.begin("reading", None)
    lines.update(5)
    assert re.fullmatch(r"reading: 5 done, [\d.]+/s", capsys.readouterr().err.splitlines()[-1])
    lines.update(0, total=10)
    assert capsys.readouterr().err.splitlines()[-1].startswith("reading: 0/10, 0.00/s")


def test_bars_show_a_step_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = take_stderr(monkeypatch)
    bars = Bars()
    bars.update(1)
    bars.begin("the teacher answers", None)
    bars.update(1, total=4)
    bars.update(4, detail="last row")
    bars.end()
    bars.end()
    bars.say("kept: [24] rows")
    shown = terminal.getvalue()
    assert "the teacher answers" in shown
    assert "4/4" in shown
    assert "last row" in shown
    assert shown.endswith("kept: [24] rows\n")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
