"""What a check says of the ways in which a teacher is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopback import serve_in_thread
from pipeline.conftest import answer
from pipeline.test_check import look, write_rows
from stand_in_server import write_program

CLAUDE = {"model": "claude-loopback", "endpoint": "http://127.0.0.1:9", "engine": "anthropic"}


def test_claude_takes_no_temperature_above_one(tmp_path: Path) -> None:
    write_rows(tmp_path)
    for temperature, wrong in ((1.0, False), (1.2, True)):
        error = look(tmp_path, teacher=CLAUDE, generation={"temperature": temperature})["teacher"].error
        assert (error is not None) == wrong
    assert error is not None
    assert (error.where, error.found) == ("generation.temperature", "1.2")


def test_a_server_is_looked_for_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for program in ("vllm", "sglang"):
        error = look(tmp_path, teacher={"model": "someone/tiny", "engine": program})["teacher"].error
        assert error is not None
        assert f"no '{program}' on PATH" in str(error.found)
        write_program(tmp_path, program)
        assert look(tmp_path, teacher={"model": "someone/tiny", "engine": program})["teacher"].error is None


def test_the_extra_of_claude_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from potstill.pipeline.checks import models

    write_rows(tmp_path)
    monkeypatch.setattr(models, "find_spec", lambda name: None if name == "anthropic" else object())
    error = look(tmp_path, teacher=CLAUDE)["installed"].error
    assert "potstill[anthropic]" in str(error)


def test_a_teacher_in_batches_is_asked_one_question_at_once_and_its_price_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    with serve_in_thread(answer) as server:
        entry = f"{{model: m, endpoint: '{server.base_url}', batch: true, price: {{input: 1, output: 2, batch: 0.4}}}}"
        (tmp_path / "catalogue.yaml").write_text(f"slow: {entry}\n")
        monkeypatch.setenv("POTSTILL_CATALOG", str(tmp_path / "catalogue.yaml"))
        found = look(tmp_path, ask=True, teacher="slow")
    assert found["endpoint"].text.startswith("answered in")
    assert ", 40% of it for what goes in batches (" in found["price"].text
