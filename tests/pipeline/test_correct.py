"""A teacher that is tuned on gold answers before it teaches: what it learns, what is done again, what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from pipeline.jobs import events, start_cli, write_rows_file
from pipeline.test_kill import kill_when
from potstill.errors import InputError, JobFailedError
from potstill.pipeline.check import preflight
from potstill.pipeline.correct import Correct
from potstill.pipeline.corrected import first_teacher
from potstill.pipeline.events import EventLog
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.progress import Silent
from potstill.pipeline.run import run_job, stages_of
from potstill.pipeline.stage import Context
from potstill.spec import JobSpec, parse_job
from threads import one_thread

pytest.importorskip("xllamacpp")
# A word says what the answer is, so often that even a tiny model sees it.
TOPICS = {"bell": "sound", "lamp": "light"}
ROWS = [
    {"question": f"{f'{word} ' * 12}{number}", "answer": answer} for number in range(1, 29) for word, answer in TOPICS.items()
]
CORRECT = {"num_epochs": 4, "learning_rate": 1e-2, "batch_size": 2}


def job_of(folder: Path, model: Path, rows: list[dict[str, Any]] = ROWS, **values: Any) -> JobSpec:
    """A job whose report is about the teacher alone, which is all that these tests look at."""
    write_rows_file(folder / "rows.jsonl", rows)
    base: dict[str, Any] = {
        "task": "qa", "teacher": {"path": str(model), "correct": CORRECT}, "student": {"path": str(model)},
        "data": {"train": "rows.jsonl"}, "generation": {"max_tokens": 8, "temperature": 0.0},
        "training": {"num_epochs": 1, "batch_size": 8}, "evaluation": {"models": ["teacher"]}, "export": [],
    }
    return parse_job({**base, **values}, source="job.yaml", folder=folder, default_name="bicycles")


@dataclass(frozen=True)
class Run:
    """A run that is through, and the folder of its rows."""

    folder: RunFolder
    job: JobSpec
    home: Path

    @property
    def correction(self) -> dict[str, Any]:
        return orjson.loads((self.folder.correction / "result.json").read_bytes())

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in events(self.folder.root) if event["event"] == kind]


@pytest.fixture(scope="module")
def run(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("corrected")
    job = job_of(home, tiny_student)
    with one_thread():
        return Run(run_job(job, home / "run", Silent()), job, home)


def test_a_teacher_that_is_wrong_is_right_after(run: Run) -> None:
    correction = run.correction
    assert (correction["train_rows"], correction["validation_rows"], correction["metric"]) == (40, 8, "token_f1")
    assert correction["score_before"]["value"] == 0
    assert correction["score_after"]["value"] == 1
    losses = {event["epoch"]: event["validation_loss"] for event in run.events("metric") if event["stage"] == "correct"}
    assert losses[0] == correction["loss_before"]
    assert losses[correction["best_epoch"]] == correction["loss_after"] == min(losses.values())


def test_the_corrected_teacher_teaches(run: Run, tiny_student: Path) -> None:
    answered = [orjson.loads(line) for line in (run.folder.generated / "train.jsonl").read_bytes().splitlines()]
    assert [row["messages"][-1]["content"] for row in answered] == [row["reference"] for row in answered]
    assert {row["meta"]["teacher"] for row in answered} == {f"{tiny_student.name} (corrected)"}
    # It knows these rows, so how it answers them is no figure of its own.
    assert run.events("finished")[2]["summary"]["teachers"][0]["score"] is None


def test_llama_cpp_answers_for_it_and_its_weights_are_there_for_others(run: Run) -> None:
    teacher = first_teacher(run.job, run.folder)
    assert (teacher.kind, teacher.path) == ("gguf", run.folder.teacher / "teacher.Q8_0.gguf")
    assert (run.folder.teacher / "model.safetensors").is_file()
    assert not (run.folder.teacher / "checkpoints").exists()


def test_report_and_cards_say_that_it_was_corrected(run: Run, tiny_student: Path) -> None:
    report = orjson.loads(run.folder.report_json.read_bytes())
    assert report["correction"] == run.correction
    assert report["models"]["teacher"]["name"] == f"{tiny_student.name} (corrected)"
    assert report["models"]["teacher"]["token_f1"]["value"] == 1
    told = "teacher: tuned on 40 gold answers of the training rows before it taught"
    for path in (run.folder.report_html, run.folder.model_card):
        assert f"{tiny_student.name} (corrected)" in path.read_text()
        assert told in path.read_text()
    card = run.folder.dataset_card.read_text()
    assert "never shown" not in card
    assert "The teacher was tuned on the gold answers of 40 of these rows before it answered" in card


def test_it_is_not_done_again_for_another_student(run: Run) -> None:
    done = len(run.events("finished"))
    again = run.job.model_copy(update={"training": run.job.training.model_copy(update={"learning_rate": 1e-3})})
    run_job(again, run.folder.root, Silent(), until="generate")
    assert len(run.events("finished")) == done


def inputs(folder: Path, model: Path, rows: list[dict[str, Any]], **values: Any) -> dict[str, Any]:
    """What the result of a correction depends on, of a run whose rows were read."""
    folder.mkdir()
    for split, part in (("validation", ROWS[:8]), ("test", ROWS[8:16])):
        write_rows_file(folder / f"{split}.jsonl", part)
    data = {"train": "rows.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}
    job = job_of(folder, model, rows, data=data, **values)
    run = run_job(job, folder / "run", Silent(), until="prepare")
    return dict(Correct().inputs(Context(job, run, EventLog(run.events), Silent())))


def test_it_depends_on_gold_rows_and_not_on_others(tmp_path: Path, tiny_student: Path) -> None:
    gold = ROWS[16:]
    first = inputs(tmp_path / "first", tiny_student, gold)
    assert inputs(tmp_path / "same", tiny_student, [*gold, {"question": "one without an answer"}]) == first
    assert inputs(tmp_path / "other", tiny_student, [*gold[1:], {**gold[0], "answer": "light"}]) != first
    fewer = {"path": str(tiny_student), "correct": {**CORRECT, "num_epochs": 2}}
    assert inputs(tmp_path / "fewer", tiny_student, gold, teacher=fewer) != first


def test_killed_and_resumed(run: Run, tmp_path: Path) -> None:
    """It goes on from its last checkpoint and ends with the same weights, and nothing is asked twice."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(run.job.model_dump(mode="json")))
    killed = tmp_path / "runs" / run.job.name
    process = start_cli("run", str(tmp_path / "job.yaml"), "--runs", str(tmp_path / "runs"), "--until", "correct")
    kill_when(process, lambda: any(killed.glob("teacher/checkpoints/checkpoint-*/complete.json")))
    before = (killed / "teacher" / "correction" / "before.json").read_bytes()
    with one_thread():
        run_job(run.job, killed, Silent(), until="correct")
    resumed = Run(RunFolder(killed), run.job, tmp_path)
    assert (killed / "teacher" / "correction" / "before.json").read_bytes() == before
    assert [event["epoch"] for event in resumed.events("metric")].count(1.0) <= 2
    assert [event["epoch"] for event in resumed.events("metric")].count(0.0) == 1
    weights = [folder / "model.safetensors" for folder in (killed / "teacher", run.folder.teacher)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert resumed.correction == run.correction


def test_a_teacher_that_becomes_no_better_does_not_teach(run: Run, tmp_path: Path, tiny_student: Path) -> None:
    teacher = {"path": str(run.folder.teacher), "correct": {"num_epochs": 0.1, "learning_rate": 1.0, "adapter": {"r": 2}}}
    with pytest.raises(JobFailedError, match="no better") as error:
        run_job(job_of(tmp_path, tiny_student, teacher=teacher), tmp_path / "run", Silent(), until="generate")
    assert "learning rate" in str(error.value)
    assert (tmp_path / "run" / "teacher" / "adapter" / "adapter_model.safetensors").is_file()
    # Nor does what was told of an earlier correction of the same weights count as its own.
    assert not (tmp_path / "run" / "teacher" / "correction" / "result.json").exists()


def test_a_job_without_it_has_no_such_stage(tmp_path: Path, tiny_student: Path) -> None:
    job = job_of(tmp_path, tiny_student, teacher={"path": str(tiny_student), "correct": False})
    assert [stage.name for stage in stages_of(job)][:2] == ["prepare", "generate"]
    with pytest.raises(InputError, match="no such stage"):
        run_job(job, tmp_path / "run", Silent(), until="correct")
    with pytest.raises(InputError, match="no such stage"):
        preflight(job, tmp_path / "run", until="correct")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        ({"model": "m", "endpoint": "https://host/v1"}, "an endpoint has none to give"),
        ({"model": "m", "engine": "vllm"}, "runs in this process"),
        ({"model": "m", "batch": True}, "runs in this process"),
        ({"model": "m", "trust_remote_code": True}, "that transformers knows"),
    ],
)
def test_teachers_whose_weights_cannot_be_tuned_are_refused(
    tmp_path: Path, tiny_student: Path, teacher: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as error:
        job_of(tmp_path, tiny_student, teacher={**teacher, "correct": True})
    assert says in error.value.what


def test_several_teachers_are_corrected_in_jobs_of_their_own(tmp_path: Path, tiny_student: Path) -> None:
    with pytest.raises(InputError, match="a job with one teacher"):
        job_of(tmp_path, tiny_student, teacher=[{"model": "a", "correct": True}, "b"])
