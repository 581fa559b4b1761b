"""A split is curated: what is kept, in which form, and what is rejected by which rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planted import SPEC, Planter
from potstill.curation import MIN_KEPT_ROWS, Curated, Curation, curate
from potstill.errors import JobFailedError
from potstill.pipeline.curate import Curate
from potstill.pipeline.events import EventLog
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.progress import Silent
from potstill.pipeline.stage import Context
from potstill.rows import Message, Row, read_jsonl, read_rows, write_rows
from potstill.spec import CurationSpec, parse_job
from potstill.tasks import Task, get_task
from potstill.tasks.reading import read_rows_of

Make = Callable[..., Row]


def curated(rows: list[Row], task: Task, held_out: list[Row] | None = None, **spec: Any) -> Curated:
    return curate(rows, split="train", spec=CurationSpec(**spec), task=task, held_out=held_out or [])


def test_each_rejected_row_has_the_first_rule_that_rejects_it(generated: Make, prepared: Make) -> None:
    task = get_task("math")
    rows = [
        generated("refused", "I can't help with that."),
        generated("cut", "Let me see: 2 plus", finish="length"),
        generated("no number", "It is many."),
        generated("wrong", "#### 5", gold="4"),
        generated("held out", "#### 4", gold="4"),
        generated("good", "#### 4", gold="4"),
        generated("good", "#### 4", gold="4", id="copy"),
        generated("Good!", "#### 4", gold="4", id="nearly"),
        generated("refused and cut", "I can't help with that.", finish="length"),
    ]
    result = curated(rows, task, [prepared("held out")])
    assert [(rejection.row.id, rejection.rule) for rejection in result.rejected] == [
        ("refused", "refused"),
        ("cut", "truncated"),
        ("no number", "unparsable"),
        ("wrong", "contradicts_gold"),
        ("held out", "contaminated"),
        ("copy", "exact_duplicate"),
        ("nearly", "near_duplicate"),
        ("refused and cut", "refused"),
    ]
    assert [row.id for row in result.kept] == ["good"]
    assert all(rejection.reason and rejection.split == "train" for rejection in result.rejected)
    assert result.counts["refused"] == 2
    assert sum(result.counts.values()) == len(result.rejected)


def test_planted_faults_are_found_by_their_rule_and_other_rows_are_kept(data_dir: Path) -> None:
    task = get_task("math")
    files = (data_dir / "math" / f"gsm8k.{split}.jsonl" for split in ("train", "validation"))
    train, validation = (read_rows_of(file, task, on_bad_row="fail").rows for file in files)
    made = Planter(train, validation).rows(2000)
    curation = Curation(SPEC, task, made.held_out)
    curation.judge(made.rows)
    rejected = {made.rows[index].id: verdict.rule for index, verdict in curation.rejected}
    thinned = [id for id, rule in rejected.items() if rule == "unbalanced"]
    assert {id: rule for id, rule in rejected.items() if id not in thinned} == made.faults
    assert len(thinned) == made.too_many
    assert curation.noticed["shares_8_words"] >= made.resembling


def test_a_rejected_row_is_written_whole_with_its_rule_and_reason(generated: Make) -> None:
    (rejection,) = curated([generated("a", "No idea.", gold="4")], get_task("math")).rejected
    entry = rejection.as_dict()
    assert (entry["id"], entry["split"], entry["rule"]) == ("a", "train", "unparsable")
    assert "No idea." in entry["reason"]
    assert Row.from_dict(entry) == rejection.row


def test_answers_that_contradict_the_gold_are_kept_without_verification(generated: Make) -> None:
    rows = [generated("a", "#### 5", gold="4")]
    assert curated(rows, get_task("math"), verify="none").kept == rows
    assert curated(rows, get_task("math"), verify="auto").counts == {"contradicts_gold": 1}


@pytest.mark.parametrize(("deduplicate", "kept"), [("none", 3), ("exact", 2), ("near", 1)])
def test_duplicates_are_rejected_as_far_as_the_job_says(text: Task, generated: Make, deduplicate: str, kept: int) -> None:
    rows = [generated("Where is it?", id="1"), generated("where is it?", id="2"), generated("Where is it", id="3")]
    assert len(curated(rows, text, deduplicate=deduplicate).kept) == kept


def test_held_out_questions_are_kept_where_the_job_says_so(text: Task, generated: Make, prepared: Make) -> None:
    rows, held_out = [generated("Where is it?")], [prepared("Where is it?")]
    assert curated(rows, text, held_out).kept == []
    assert curated(rows, text, held_out, decontaminate=False).kept == rows


def test_a_row_that_was_rejected_does_not_make_the_next_one_a_duplicate(generated: Make) -> None:
    rows = [generated("a", "No idea.", id="1", gold="4"), generated("a", "#### 4", id="2", gold="4")]
    assert [row.id for row in curated(rows, get_task("math")).kept] == ["2"]


def test_the_student_learns_the_normal_form_of_the_teachers_turns_alone() -> None:
    task = get_task("nli")
    history = [Message("user", "First pair"), Message("assistant", "It is neutral, I think."), Message("user", "Second pair")]
    row = Row("a", (*history, Message("assistant", "The answer is entailment.")), None, {"finish_reasons": ["stop"]})
    (kept,) = curated([row], task).kept
    assert [message.content for message in kept.messages if message.role == "assistant"] == [
        "It is neutral, I think.",
        "entailment",
    ]


def test_every_turn_of_a_conversation_is_the_teachers() -> None:
    messages = tuple(Message(role, f" {role} ") for role in ("user", "assistant", "user", "assistant"))  # type: ignore[arg-type]
    (kept,) = curated([Row("a", messages, None, {"finish_reasons": ["stop", "stop"]})], get_task("conversation")).kept
    assert [message.content for message in kept.messages] == [" user ", "assistant", " user ", "assistant"]


def run_stage(folder: Path, rows: list[Row]) -> dict[str, Any]:
    """The curate stage of a run whose teacher answered `rows`."""
    run = RunFolder(folder)
    for split in ("train", "validation", "test"):
        write_rows(run.rows / f"{split}.jsonl", rows if split == "train" else [])
        if split != "test":
            write_rows(run.generated / f"{split}.jsonl", rows if split == "train" else [])
    job = parse_job(
        {"task": "math", "teacher": "smollm2-135m-instruct", "student": "smollm2-135m-instruct", "data": {"train": "a.jsonl"}},
        source="job.yaml", folder=folder, default_name="run",
    )
    return dict(Curate().run(Context(job, run, EventLog(run.events), Silent()), "fingerprint"))


def answers(generated: Make, good: int) -> list[Row]:
    right = [generated(f"What is {n} plus {n}?", f"#### {2 * n}", gold=str(2 * n)) for n in range(good)]
    wrong = [generated(f"And {n} times ten?", "#### 1", gold="7") for n in range(2)]
    return [*right, *wrong, generated("Who?", "I can't help with that.")]


def test_the_job_goes_on_with_sixteen_kept_rows(tmp_path: Path, generated: Make) -> None:
    assert MIN_KEPT_ROWS == 16
    figures = run_stage(tmp_path, answers(generated, MIN_KEPT_ROWS))
    assert figures["kept"] == {"train": 16, "validation": 0}
    assert figures["rejected"] == {"contradicts_gold": 2, "refused": 1}
    assert len(list(read_rows(tmp_path / "curated" / "train.jsonl"))) == 16


def test_fewer_kept_rows_fail_the_job_with_the_counts_by_rule(tmp_path: Path, generated: Make) -> None:
    with pytest.raises(JobFailedError, match="only 15 training rows were kept, at least 16") as caught:
        run_stage(tmp_path, answers(generated, MIN_KEPT_ROWS - 1))
    assert caught.value.found == "rejected: 2 contradicts_gold, 1 refused"
    rejected = list(read_jsonl(tmp_path / "curated" / "rejected.jsonl"))
    assert [entry["rule"] for entry in rejected] == ["contradicts_gold", "contradicts_gold", "refused"]
