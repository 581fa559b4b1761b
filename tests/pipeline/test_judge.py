"""A job with a judge: what is found before it starts, and what a whole run has of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from judging.judges import answers_shown
from loopback import Messages, serve_in_thread
from pipeline.jobs import events, topic_rows, write_rows_file
from potstill.errors import InputError, PotstillError
from potstill.pipeline.check import check_job, preflight
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.progress import Silent
from potstill.pipeline.run import run_job
from potstill.spec import JobSpec, parse_job

ROWS = [{"prompt": row["text"]} for row in topic_rows(56)]


def job_with(judge: Any, folder: Path, **values: Any) -> JobSpec:
    write_rows_file(folder / "rows.jsonl", ROWS)
    base = {"task": "text", "teacher": {"model": "m", "endpoint": "http://127.0.0.1:9/v1"}, "data": {"train": "rows.jsonl"}}
    job = {**base, "student": str(folder), "evaluation": {"judge": judge}, **values}
    return parse_job(job, source="job.yaml", folder=folder, default_name="job")


def judge_error(job: JobSpec) -> PotstillError | None:
    return next(found.error for found in check_job(job, ask_endpoint=False) if found.subject == "judge")


@pytest.fixture
def folders(tiny_student: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The same model in two folders."""
    copies = tmp_path / "student", tmp_path / "judge"
    for copy in copies:
        copy.mkdir()
        for file in tiny_student.iterdir():
            (copy / file.name).symlink_to(file)
    return copies


@pytest.mark.parametrize("name", ["m", "another"])
def test_the_teacher_does_not_judge_itself(name: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    judge = {"model": name, "endpoint": "http://127.0.0.1:9/v1/"}
    error = judge_error(job_with(judge, tmp_path, student=str(folders[0])))
    if name == "another":
        assert error is None
        return
    assert isinstance(error, InputError)
    assert error.where == "key 'evaluation.judge' of the job file"
    assert error.found == "the judge is the teacher, m"
    assert "allow_self: true" in str(error.hint)
    assert judge_error(job_with({**judge, "allow_self": True}, tmp_path, student=str(folders[0]))) is None


def test_a_copy_of_the_student_does_not_judge_it(folders: tuple[Path, Path], tmp_path: Path) -> None:
    student, copy = folders
    job = job_with({"path": str(copy)}, tmp_path, student=str(student))
    with pytest.raises(InputError) as error:
        preflight(job, tmp_path / "runs" / "job")
    assert (error.value.exit_code, error.value.found) == (2, "the judge is the student, student")
    (copy / "config.json").unlink()
    (copy / "config.json").write_bytes((student / "config.json").read_bytes() + b"\n")
    assert judge_error(job) is None


def test_a_judge_that_leads_nowhere_is_found(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for judge, says in (("nowhere", "no model is called"), ({"path": "none.gguf"}, "does not exist")):
        error = judge_error(job_with(judge, tmp_path, student=str(folders[0])))
        assert says in str(error)


def test_the_judges_endpoint_is_asked_before_the_run(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with serve_in_thread(lambda messages: "Yes.") as server:
        teacher = {"model": "m", "endpoint": server.base_url}
        for address, good in ((server.base_url, True), ("http://127.0.0.1:9/v1", False)):
            judge = {"model": "judge", "endpoint": address}
            found = check_job(job_with(judge, tmp_path, teacher=teacher, student=str(folders[0])), ask_endpoint=True)
            (asked,) = [entry for entry in found if entry.subject == "judge's endpoint"]
            assert (asked.error is None) == good
            # 8 test rows: 3 scores, and 2 comparisons in both orders.
            (price,) = [entry for entry in found if entry.subject == "judge's price"]
            assert price.text.startswith("at most 56 requests, ")
            assert price.text.endswith("the price of judge is not known")


def test_a_score_of_a_judge_is_a_metric_where_there_is_one(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for judge, known in (({"model": "judge", "endpoint": "http://127.0.0.1:9/v1"}, True), (None, False)):
        evaluation = {"judge": judge, "metrics": ["judge_score"]}
        found = check_job(job_with(None, tmp_path, student=str(folders[0]), evaluation=evaluation), ask_endpoint=False)
        (metrics,) = [entry for entry in found if entry.subject == "metrics"]
        assert (metrics.error is None) == known


def teacher_and_judge(messages: Messages) -> str:
    """As a teacher it says what a row is about; as a judge it likes what does so."""
    answers = answers_shown(messages)
    if not answers:
        return f"This is about {messages[-1]['content'].split()[-1]}"
    good = [answer.startswith("This is about") for answer in answers]
    if len(answers) == 1:
        return f'{{"reason": "clear", "score": {5 if good[0] else 2}}}'
    return f'{{"winner": "{"tie" if good[0] == good[1] else "A" if good[0] else "B"}"}}'


def test_a_whole_run_is_judged_once(tiny_student: Path, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    with serve_in_thread(teacher_and_judge) as server:

        def run(**judge: Any) -> tuple[RunFolder, int]:
            """A run with this judge, and how many requests the judge got for it."""
            before = len(server.requests)
            job = job_with(
                {"model": "judge", "endpoint": server.base_url, **judge}, tmp_path, student=str(tiny_student),
                teacher={"model": "m", "endpoint": server.base_url}, generation={"max_tokens": 16},
                training={"num_epochs": 1, "batch_size": 16, "learning_rate": 1e-2}, export={"formats": []},
            )
            models = job.evaluation.model_copy(update={"models": ["teacher", "distilled"]})
            folder = run_job(job.model_copy(update={"evaluation": models}), tmp_path / "run", Silent())
            return folder, sum(request.body["model"] == "judge" for request in server.requests[before:])

        folder, asked = run()
        seen = len(events(folder.root))
        # 8 test rows, two models; the student's gibberish is compared with the teacher's answers in both orders.
        assert 16 < asked <= 16 + 16
        assert run()[1] == 0
        # Without comparisons the stage is done again, and nothing is asked again.
        report = orjson.loads(folder.report_json.read_bytes())
        assert run(pairwise=False)[1] == 0
    assert [event["stage"] for event in events(folder.root)[seen:] if event["event"] == "finished"] == ["evaluate", "report"]
    assert report["models"]["teacher"]["accuracy"]["value"] == 1
    assert report["models"]["teacher"]["accuracy"]["measured_by"] == "judge"
    assert report["models"]["distilled"]["judge_score"]["value"] < 5
    assert report["judge"]["model"] == "judge"
    assert report["judge"]["distilled_against"]["teacher"]["losses"] > 0
    assert orjson.loads(folder.report_json.read_bytes())["judge"]["distilled_against"] is None
    assert "What the judge says" in folder.report_html.read_text()
    lines = [orjson.loads(line) for line in (folder.evaluation / "judgements.jsonl").read_bytes().splitlines()]
    assert len(lines) == 2 * report["test_rows"]
