"""Every wrong input is named in a few lines, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Cli
from cli.wrong_cases import JOB, LINES, MODEL, ROWS, SECRETIVE, WRONG, Wrong, teacher


@pytest.fixture
def wrong(request: pytest.FixtureRequest, work: Path, monkeypatch: pytest.MonkeyPatch) -> Wrong:
    """A case, its files in the current folder."""
    case = WRONG[request.param]
    case.write(work)
    monkeypatch.delenv("POTSTILL_CATALOG", raising=False)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    return case


@pytest.mark.usefixtures("embedded_gguf")
@pytest.mark.parametrize("wrong", WRONG, indirect=True)
class TestWrongInput:
    def test_is_named_in_at_most_six_lines(self, cli: Cli, wrong: Wrong, work: Path) -> None:
        before = sorted(work.rglob("*"))
        done = cli(*wrong.arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: ")
        assert len(done.err.splitlines()) <= 6
        assert wrong.says in done.err
        assert wrong.where in done.err
        assert sorted(work.rglob("*")) == before

    def test_is_one_object_for_a_program(self, cli: Cli, wrong: Wrong, work: Path) -> None:
        done = cli(*wrong.arguments, "--json")
        assert (done.code, done.err) == (2, "")
        error = json.loads(done.out)
        assert set(error) == {"error", "what", "where", "found", "expected", "hint"}
        assert wrong.where in error["where"]
        assert wrong.says in " ".join(text for text in error.values() if text)
        assert not (work / "runs").exists()


@pytest.mark.usefixtures("embedded_gguf")
@pytest.mark.parametrize("wrong", [name for name, case in WRONG.items() if case.arguments[1:] == ("job.yaml",)], indirect=True)
def test_check_finds_it_too(cli: Cli, wrong: Wrong, work: Path) -> None:
    done = cli("check", "job.yaml", "--offline")
    assert done.code == 2
    assert wrong.says in done.out + done.err
    assert not (work / "runs").exists()


@pytest.mark.usefixtures("embedded_gguf")
def test_a_good_job_is_found_in_order(cli: Cli, work: Path) -> None:
    """The job that the wrong ones differ from; were it wrong itself, they would prove nothing."""
    Wrong("", "").write(work)
    done = cli("check", "job.yaml", "--offline")
    assert done.code == 0, done.out
    assert "FAIL" not in done.out


def test_no_output_shows_the_password_of_an_endpoint(cli: Cli, work: Path) -> None:
    Wrong("", "", job=teacher(SECRETIVE)).write(work)
    for arguments in (["run", "job.yaml"], ["run", "job.yaml", "--json"], ["check", "job.yaml"]):
        done = cli(*arguments)
        assert "hunter2" not in done.out + done.err


MANY = f"""\
task: poetry
teachr: {MODEL}
student: {{modle: x, adapter: {{r: 0}}}}
data: {{train: rows.jsonl, on_bad_row: maybe}}
training: {{batch_size: many, learning_rate: 7}}
evaluation: {{metrics: 5}}
export: [gguf:q3]
"""


@pytest.mark.usefixtures("embedded_gguf")
class TestCheckFindsAllAtOnce:
    """Everything wrong, each with its place, in one go."""

    def failed(self, cli: Cli, code: int = 2) -> list[tuple[str, dict[str, str]]]:
        done = cli("check", "job.yaml", "--offline", "--json")
        assert (done.code, done.err) == (code, "")
        return [(finding["subject"], finding["error"]) for finding in json.loads(done.out) if not finding["ok"]]

    def test_wrong_keys(self, cli: Cli, work: Path) -> None:
        Wrong("", "", job=MANY).write(work)
        errors = [error for subject, error in self.failed(cli) if subject == "job"]
        lines = {error["what"].split("'")[1]: error["where"].rpartition(" ")[2] for error in errors}
        assert lines == {
            "task": "1", "teacher": "job.yaml", "teachr": "2", "student.modle": "3", "student.adapter.r": "3",
            "data.on_bad_row": "4", "training.batch_size": "5", "training.learning_rate": "5", "evaluation.metrics": "6",
            "export.formats.0": "7",
        }
        found = {error["what"]: error["found"] for error in errors}
        assert found["wrong value for 'training.batch_size'"] == "'many'"
        assert "did you mean 'teacher'?" in [error["hint"] for error in errors]

    def test_what_can_be_read_of_a_wrong_job_is_looked_at_too(self, cli: Cli, work: Path) -> None:
        text = teacher("nowhere") + "colour: red\ntraining: {batch_size: many}\nevaluation: {metrics: [sparkle]}\n"
        Wrong("", "", job=text, rows=ROWS + "{").write(work)
        assert [subject for subject, _ in self.failed(cli)] == ["job", "job", "data", "teacher", "metrics"]

    def test_bad_rows_of_all_files(self, cli: Cli, work: Path) -> None:
        text = JOB.replace("{train: rows.jsonl}", "{train: rows.jsonl, validation: absent.jsonl, test: test.jsonl}")
        bad = "".join(f"{{{number}\n" for number in range(25))
        Wrong("", "", job=text, rows=ROWS + bad, files={"test.jsonl": LINES[0] + "\nnothing\n"}).write(work)
        errors = [error for _, error in self.failed(cli)]
        rows = [error["where"].rpartition("line ")[2] for error in errors if "rows.jsonl, line" in error["where"]]
        assert rows == [str(line) for line in range(41, 61)]
        assert errors[0]["what"] == "a row cannot be read (24 more rows are bad)"
        assert [error["what"] for error in errors[20:]] == [
            "5 more rows cannot be read", "the data file does not exist", "a row cannot be read"
        ]
        assert errors[-1]["where"].endswith("test.jsonl, line 2")

    def test_all_that_is_wrong_with_a_model(self, cli: Cli, work: Path) -> None:
        files = {"base/config.json": "{}", "base/model.safetensors": "x", "base/tokenizer.json": "{"}
        Wrong("", "", job=JOB.replace(f"student: {MODEL}", "student: ./base"), files=files).write(work)
        said = [error["what"] for subject, error in self.failed(cli) if subject == "student"]
        assert len(said) == 4
        for part, text in zip(("template", "header", "config.json", "tokenizer"), said, strict=True):
            assert part in text


@pytest.mark.usefixtures("embedded_gguf")
def test_a_run_folder_is_checked_by_its_job_file(cli: Cli, work: Path) -> None:
    Wrong("", "").write(work)
    assert cli("check", ".", "--offline").code == 0


@pytest.mark.parametrize(
    ("arguments", "where", "says"),
    [
        (["run", "--json"], "potstill run", "'job'"),
        (["--json"], "potstill", "--json"),
        (["run", "job.yaml", "--nope", "--json"], "potstill run", "--nope"),
        (["tune", "job.yaml", "--json"], "potstill", "tune"),
        (["run", "job.yaml", "--json", "--until"], "potstill", "--until"),
    ],
)
def test_arguments_that_make_no_command_are_one_object_for_a_program(
    cli: Cli, arguments: list[str], where: str, says: str
) -> None:
    done = cli(*arguments)
    assert (done.code, done.err) == (2, "")
    error = json.loads(done.out)
    assert set(error) == {"error", "what", "where", "found", "expected", "hint"}
    assert (error["where"], says in error["what"], "--help" in error["hint"]) == (where, True, True)


@pytest.mark.parametrize("arguments", [["run"], ["run", "job.yaml", "--nope"], ["tune", "job.yaml"], ["init"]])
def test_arguments_that_make_no_command(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) <= 6
    assert "--help" in done.err
