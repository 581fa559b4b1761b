"""What happens where a file departs from the weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from potstill.errors import ExportError
from potstill.pipeline import export
from potstill.pipeline.events import EventLog
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.progress import Silent
from potstill.pipeline.stage import Context
from potstill.rows import Message, Row, write_rows
from potstill.spec import parse_job

pytest.importorskip("xllamacpp")
gguf = pytest.importorskip("gguf")


@pytest.fixture
def context(tiny_student: Path, tmp_path: Path) -> Context:
    """A run that is trained, and measures nothing."""
    folder = RunFolder(tmp_path / "run")
    folder.rows.mkdir(parents=True)
    rows = [Row(f"r{number}", (Message("user", f"question {number}"), Message("assistant", "answer"))) for number in range(2)]
    for split in ("train", "validation", "test"):
        write_rows(folder.rows / f"{split}.jsonl", rows)
    shutil.copytree(tiny_student, folder.student)
    given = {
        "task": "text", "teacher": {"path": str(tiny_student)}, "student": {"path": str(tiny_student)},
        "data": {"train": str(folder.rows / "train.jsonl")}, "evaluation": {"models": ["distilled"]},
    }
    job = parse_job(given, source="test", folder=tmp_path, default_name="test")
    return Context(job, folder, EventLog(folder.events), Silent())


def losing(monkeypatch: pytest.MonkeyPatch, *losses: float) -> Iterator[float]:
    """Every file that is verified loses the next of these."""
    left = iter(losses)

    async def quality_loss(*_: Any) -> float:
        return next(left)

    monkeypatch.setattr(export, "quality_loss", quality_loss)
    return left


def test_what_suffers_most_from_8_bits_stays_in_half_precision_where_the_file_departs(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing(monkeypatch, 0.03, 0.003)
    told = export.Export().run(context, "one")["files"]["gguf:q8_0"]
    assert (told["quality_loss"], told["in_half"]) == (0.003, ["ffn_down"])
    file = context.folder.exports / "student.Q8_0.gguf"
    assert told["size_bytes"] == file.stat().st_size
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert {name: types[f"blk.1.{name}.weight"] for name in ("ffn_down", "ffn_up", "attn_q")} == {
        "ffn_down": "F16", "ffn_up": "Q8_0", "attn_q": "Q8_0"
    }


def test_a_file_that_departs_all_the_same_is_refused_with_a_way_out(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    left = losing(monkeypatch, 0.5, 0.4)
    with pytest.raises(ExportError) as raised:
        export.Export().run(context, "one")
    assert raised.value.found == "0.4000 nats a token lost"
    assert "gguf:f16" in str(raised.value.hint)
    assert next(left, None) is None


def test_a_file_that_agrees_is_written_once(context: Context) -> None:
    told = export.Export().run(context, "one")["files"]["gguf:q8_0"]
    assert told["in_half"] == []
    assert told["quality_loss"] <= 0.02
