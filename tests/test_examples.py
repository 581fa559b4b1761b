"""The job files of examples/ load, pass the checks, and run up to training with a teacher that knows the answers.

Not tested here, because it needs an account, a download or a GPU: that their endpoints answer, that the hub has their students,
and that these train.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loopback import Messages, serve_in_thread
from potstill.curation import MIN_KEPT_ROWS
from potstill.pipeline.check import check_job
from potstill.pipeline.prepare import read_job_rows
from potstill.pipeline.progress import Silent
from potstill.pipeline.run import run_job
from potstill.spec import JobSpec, load_job
from potstill.spec_correction import SoleTeacherSpec

FOLDER = Path(__file__).resolve().parent.parent / "examples"
FILES = sorted(FOLDER.glob("*.yaml"))
KEYS = ("DEEPSEEK_API_KEY", "ANTHROPIC_API_KEY")


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def job(request: pytest.FixtureRequest) -> JobSpec:
    return load_job(request.param)


def test_there_is_one_for_each_use() -> None:
    assert [path.stem for path in FILES] == ["distribution", "embedded", "endpoint", "math", "nli"]
    assert len({load_job(path).name for path in FILES}) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_comments_say_how_to_start_it(path: Path) -> None:
    text = path.read_text()
    assert f"potstill check examples/{path.name}" in text
    assert f"potstill run examples/{path.name}" in text


@pytest.mark.usefixtures("embedded_gguf")
def test_it_passes_the_checks(job: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "any value, since no endpoint is asked")
    findings = check_job(job, ask_endpoint=False)
    assert {finding.subject: finding.text for finding in findings if finding.error is not None} == {}


def test_its_data_are_forty_rows_that_all_differ(job: JobSpec) -> None:
    rows = read_job_rows(job)["train"].rows
    assert len(rows) >= 40
    assert len({row.messages for row in rows}) == len(rows)
    if job.task in ("nli", "math"):
        assert all(row.reference for row in rows)


def test_it_runs_up_to_training(job: JobSpec, tmp_path: Path) -> None:
    rows = read_job_rows(job)["train"].rows
    golds = {row.messages[-1].content: row.references[0] for row in rows if row.references}

    def answer(messages: Messages) -> str:
        return golds.get(messages[-1]["content"]) or f"This is about: {messages[-1]['content'].rstrip('?.')}."

    with serve_in_thread(answer) as server:
        teacher = SoleTeacherSpec(model="loopback", endpoint=server.base_url, concurrency=4)
        folder = run_job(job.model_copy(update={"teacher": teacher}), tmp_path / "run", Silent(), until="curate")
    kept = (folder.curated / "train.jsonl").read_text().splitlines()
    rejected = (folder.curated / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in rejected] == []
    assert len(kept) >= MIN_KEPT_ROWS
