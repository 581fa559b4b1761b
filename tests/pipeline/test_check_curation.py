"""Curation's settings are looked at before anything is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from embeddings_endpoint import DIMENSIONS, EmbeddingEndpoint
from loopback import serve_in_thread
from potstill.pipeline.check import Finding, check_job
from potstill.spec import parse_job

EMBEDDED = "smollm2-135m-instruct"


def look(folder: Path, curation: dict[str, Any], *, task: str = "classification", ask: bool = False) -> dict[str, Finding]:
    rows = [{"text": f"Question {n}", "label": "even" if n % 2 == 0 else "odd", "topic": f"t{n % 3}"} for n in range(40)]
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    values = {"task": task, "teacher": EMBEDDED, "student": EMBEDDED, "data": {"train": "rows.jsonl"}, "curation": curation}
    job = parse_job(values, source="job.yaml", folder=folder, default_name="job")
    return {finding.subject: finding for finding in check_job(job, ask_endpoint=ask)}


def test_rows_can_be_balanced_by_their_label_or_by_a_field(tmp_path: Path) -> None:
    assert look(tmp_path, {"balance": "label"})["balance"].text == "no label has more than 3 times the rows of another"
    told = look(tmp_path, {"balance": {"by": "topic", "ratio": 2}}, task="text")["balance"].text
    assert told.startswith("by 'topic': 3 groups, in 24 of 24 rows")
    assert "balance" not in look(tmp_path, {})


@pytest.mark.parametrize(
    ("curation", "task", "what", "found"),
    [
        ({"balance": "label"}, "text", "rows of text have no label", None),
        ({"balance": "subject"}, "text", "no row has the field 'subject'", "the fields label, topic"),
    ],
)
def test_what_no_row_has_is_told(tmp_path: Path, curation: dict[str, Any], task: str, what: str, found: str | None) -> None:
    error = look(tmp_path, curation, task=task)["balance"].error
    assert error is not None
    assert error.what.startswith(what)
    assert error.found == found
    assert error.exit_code == 2


def test_an_embedding_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for value in ("nowhere", "empty"):
        error = look(tmp_path, {"semantic": f"./{value}"})["embeddings"].error
        assert error is not None
        assert error.exit_code == 2
        assert value in str(error)


def test_a_key_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    spec = {"model": "e", "endpoint": "http://127.0.0.1:9/v1", "api_key_env": "NO_SUCH_KEY"}
    error = look(tmp_path, {"semantic": spec})["embeddings"].error
    assert error is not None
    assert "NO_SUCH_KEY" in str(error)


def test_the_endpoint_is_asked_for_one_vector(tmp_path: Path) -> None:
    with serve_in_thread(lambda messages: "yes", EmbeddingEndpoint) as server:
        spec = {"semantic": {"model": "e", "endpoint": server.base_url}}
        assert look(tmp_path, spec, ask=True)["embeddings' endpoint"].text == f"answered, with {DIMENSIONS} dimensions"
        assert "embeddings' endpoint" not in look(tmp_path, spec)
        assert len(server.embedded) == 1


def test_a_model_of_this_machine_is_looked_at(tmp_path: Path, tiny_student: Path) -> None:
    finding = look(tmp_path, {"semantic": {"path": str(tiny_student)}})["embeddings"]
    assert finding.error is None
    assert finding.text.endswith("a folder on this machine")
