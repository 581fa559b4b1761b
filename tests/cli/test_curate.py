"""`potstill curate`: the stage alone, and why a row was kept or rejected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
import yaml

from cli.conftest import Cli, assert_told
from embeddings_endpoint import EmbeddingEndpoint
from loopback import Messages, serve_in_thread
from pipeline.jobs import events, gold_answer, run_cli, topic_rows, write_job, write_rows_file
from potstill.pipeline.curate import Curate
from potstill.pipeline.events import EventLog
from potstill.pipeline.explain import explain_row
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.progress import Silent
from potstill.pipeline.stage import Context
from potstill.spec import CurationSpec, load_job

ROWS = [{**row, "id": f"row-{number}"} for number, row in enumerate(topic_rows(56))]
TWICE = {**ROWS[3], "id": "again", "text": ROWS[3]["text"].upper()}

HELD_OUT = [{"text": f"Question {number}?", "label": ROWS[number]["label"]} for number in range(16)]


def teacher(messages: Messages) -> str:
    """The gold label; to one question a refusal."""
    text = messages[-1]["content"]
    if text == ROWS[5]["text"]:
        return "I'm sorry, but I can't help with that."
    return gold_answer([*ROWS, TWICE, *HELD_OUT])(messages)


@dataclass
class Answered:
    """A run whose teacher has answered, and its job file."""

    job: Path
    runs: Path
    server: EmbeddingEndpoint

    @property
    def folder(self) -> Path:
        return self.runs / "topics"


@pytest.fixture(scope="module")
def answered(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answered]:
    folder = tmp_path_factory.mktemp("curate")
    data = write_rows_file(folder / "rows.jsonl", [*ROWS, TWICE])
    held_out = [str(write_rows_file(folder / f"{n}.jsonl", HELD_OUT[8 * n : 8 * n + 8])) for n in range(2)]
    with serve_in_thread(teacher, EmbeddingEndpoint) as server:
        job = write_job(folder / "job.yaml", server.base_url, tiny_student, data, curation={"verify": "none"})
        splits = {"train": str(data), "validation": held_out[0], "test": held_out[1]}
        job.write_text(yaml.safe_dump({**yaml.safe_load(job.read_text()), "data": splits}))
        done = run_cli("run", str(job), "--runs", str(folder / "runs"), "--until", "generate")
        assert done.returncode == 0, done.stderr
        yield Answered(job, folder / "runs", server)


@pytest.fixture
def run(answered: Answered, tmp_path: Path) -> Answered:
    """A copy of its own."""
    runs, job = tmp_path / "runs", tmp_path / "job.yaml"
    shutil.copytree(answered.runs, runs)
    shutil.copy(answered.job, job)
    return Answered(job, runs, answered.server)


def rejected(run: Answered) -> dict[str, str]:
    lines = (run.folder / "curated" / "rejected.jsonl").read_bytes().splitlines()
    return {entry["id"]: entry["rule"] for entry in map(orjson.loads, lines) if entry["split"] == "train"}


def test_the_stage_runs_alone_and_asks_nobody(run: Answered, cli: Cli) -> None:
    asked = len(run.server.requests)
    done = cli("curate", str(run.folder))
    assert done.code == 0, done.err
    assert rejected(run) == {"row-5": "refused", "again": "exact_duplicate"}
    assert len(run.server.requests) == asked
    finished = [event for event in events(run.folder) if event["event"] == "finished"]
    assert [event["stage"] for event in finished] == ["prepare", "generate", "curate"]
    summary = finished[-1]["summary"]
    assert summary["kept"]["train"] == len(ROWS) - 1
    assert 0 < summary["diversity"]["prompts"]["distinct_2"] <= 1
    assert "done before" in cli("curate", str(run.folder)).err


def test_other_rules_in_the_job_file_count_at_once(run: Answered, cli: Cli) -> None:
    job = yaml.safe_load(run.job.read_text())
    run.job.write_text(yaml.safe_dump({**job, "curation": {"verify": "none", "deduplicate": "none"}}))
    assert cli("curate", str(run.job), "--runs", str(run.runs)).code == 0
    assert rejected(run) == {"row-5": "refused"}


def test_what_comes_before_has_to_be_done(run: Answered, cli: Cli) -> None:
    (run.folder / "generated" / "train.jsonl").unlink()
    done = cli("curate", str(run.folder))
    found = "found: its settings or its files"
    assert_told(done, "generate has to be done before curate", "where: ", found, "potstill run", code=2)
    job = yaml.safe_load(run.job.read_text())
    run.job.write_text(yaml.safe_dump({**job, "name": "other"}))
    done = cli("curate", str(run.job), "--runs", str(run.runs))
    assert_told(done, "prepare has to be done", "where: ", "found: it was never done here", "potstill run", code=2)
    assert not (run.runs / "other").exists()


def test_a_kept_row_is_explained_rule_by_rule(run: Answered, cli: Cli) -> None:
    done = cli("curate", str(run.folder), "--explain", "row-3", "--json")
    told = json.loads(done.out)
    assert (told["id"], told["split"], told["kept"], told["rule"]) == ("row-3", "train", True, None)
    assert {"refused", "near_duplicate", "contaminated", "length_outlier"} <= {each["rule"] for each in told["rules"]}
    assert all(each["keeps"] and each["reason"] is None for each in told["rules"])
    assert told["messages"][-2]["content"] == ROWS[3]["text"]


def test_a_rejected_row_is_explained_with_what_the_other_rules_say(run: Answered, cli: Cli) -> None:
    told = json.loads(cli("curate", str(run.folder), "--explain", "again", "--json").out)
    assert (told["kept"], told["rule"], told["reason"]) == (False, "exact_duplicate", "asks the same as row row-3")
    says = {each["rule"]: each["keeps"] for each in told["rules"]}
    assert says["exact_duplicate"] is says["near_duplicate"] is False
    assert says["unparsable"] is says["contaminated"] is True
    shown = cli("curate", str(run.folder), "--explain", "aga").out
    assert shown.startswith("again (train): rejected by exact_duplicate: asks the same as row row-3\n")
    assert f"user: {TWICE['text']}" in shown
    assert f"gold: {TWICE['label']}" in shown


def test_an_id_that_means_no_row_or_several_is_told(run: Answered, cli: Cli) -> None:
    done = cli("curate", str(run.folder), "--explain", "nobody")
    assert_told(done, "no answered row has this id", "where: --explain", "found: nobody", "expected: ", code=2)
    done = cli("curate", str(run.folder), "--explain", "row-1")
    assert done.code == 0, "the whole id counts before the beginning of row-10"
    done = cli("curate", str(run.folder), "--explain", "row-")
    assert_told(done, "several rows", "where: --explain", "found: row-", "expected: more of the id", code=2)


def test_rows_that_mean_the_same_are_told_by_an_embedding_model(run: Answered, cli: Cli) -> None:
    """The words of the copy stand in another order, which no rule on words sees and this embedding model does not mind."""
    path = run.folder / "generated" / "train.jsonl"
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    words = lines[0]["messages"][-2]["content"].split()
    copy = {**lines[0], "id": "turned", "messages": [
        *lines[0]["messages"][:-2], {"role": "user", "content": " ".join(reversed(words))}, lines[0]["messages"][-1],
    ]}
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in [*lines, copy]))
    spec, folder = load_job(run.folder / "job.yaml"), RunFolder(run.folder)
    semantic = {"model": "embedder", "endpoint": run.server.base_url}
    curation = CurationSpec.model_validate({"verify": "none", "semantic": semantic})
    spec = spec.model_copy(update={"curation": curation})
    told = explain_row(spec, folder, "turned")
    assert told.verdict is not None
    assert (told.verdict.rule, told.verdict.reason) == (
        "semantic_duplicate", f"means the same as row {lines[0]['id']} (similarity 1.00)"
    )
    asked = len(run.server.embedded)
    assert asked > len(ROWS) / 2
    context = Context(spec, folder, EventLog(folder.events), Silent())
    assert Curate().run(context, "fingerprint")["rejected"]["semantic_duplicate"] == 1
    assert Curate().inputs(context)["semantic"][0]["endpoint"].startswith(run.server.base_url)
    assert len(set(run.server.embedded[asked:]) & set(run.server.embedded[:asked])) == 0, "the journal has them"
