"""Every wrong input is named in a few lines, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cli.conftest import Cli

MODEL = "smollm2-135m-instruct"
JOB = f"task: classification\nteacher: {MODEL}\nstudent: {MODEL}\ndata: {{train: rows.jsonl}}\n"
WORDS = ("bell", "chain", "frame", "glove", "helmet", "lamp", "pedal", "pump")
ASKED = [(f"Where is my {word} of size {size}?", "ab"[size % 2]) for word in WORDS for size in range(5)]
LINES = [json.dumps({"text": text, "label": label}) for text, label in ASKED]
ROWS = "\n".join(LINES) + "\n"
ABSENT_KEY = "POTSTILL_TEST_ABSENT_KEY"

Content = str | bytes


@dataclass(frozen=True)
class Wrong:
    """What differs from a good job, and what the error has to say and where."""

    says: str
    where: str
    job: Content = JOB
    rows: Content = ROWS
    files: Mapping[str, Content] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("run", "job.yaml")
    environment: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        for name, content in {"job.yaml": self.job, "rows.jsonl": self.rows, **self.files}.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def teacher(model: str) -> str:
    return JOB.replace(f"teacher: {MODEL}", f"teacher: {model}")


def student(model: str) -> str:
    return JOB.replace(f"student: {MODEL}", f"student: {model}")


def data(sources: str) -> str:
    return JOB.replace("{train: rows.jsonl}", sources)


OWN_CATALOG = {"POTSTILL_CATALOG": "own.yaml"}
SECRETIVE = "{model: m, endpoint: 'https://me:hunter2@host/v1'}"
DEAD_ENDPOINT = "{model: m, endpoint: 'http://127.0.0.1:9/v1'}"
CONFIG = '{"num_hidden_layers": 4, "max_position_embeddings": 64}'

WRONG = {
    # the job file
    "no job file": Wrong("job file does not exist", "absent.yaml", arguments=("run", "absent.yaml")),
    "folder without a job": Wrong("job file does not exist", "job.yaml", arguments=("run", "sub"), files={"sub/x": ""}),
    "YAML syntax": Wrong("expected ',' or '}'", "job.yaml, line 6", job=JOB + "training: {batch_size: 2\n"),
    "tab in YAML": Wrong("'\\t'", "job.yaml, line 6", job=JOB + "training:\n\tbatch_size: 2\n"),
    "control character": Wrong("U+0000", "job.yaml, line 5", job=JOB + "# \0\n"),
    "key given twice": Wrong("'task' a second time", "job.yaml, line 5", job=JOB + "task: nli\n"),
    "impossible date": Wrong("month must be", "job.yaml", job=JOB + "name: 2026-13-01\n"),
    "no mapping": Wrong("holds no mapping", "job.yaml", job="- task\n"),
    "empty job": Wrong("holds no mapping", "job.yaml", job=""),
    "job not UTF-8": Wrong("not UTF-8", "job.yaml, line 5", job=(JOB + "# café\n").encode("latin-1")),
    # keys and values
    "required keys": Wrong("'teacher' is missing", "job.yaml", job="task: nli\n"),
    "unknown key": Wrong("unknown key 'colour'", "job.yaml", job=JOB + "colour: red\n"),
    "misspelt key": Wrong("'training.learning_rte'", "job.yaml", job=JOB + "training: {learning_rte: 1.0e-5}\n"),
    "wrong type": Wrong("a whole number", "job.yaml", job=JOB + "training: {batch_size: many}\n"),
    "out of bounds": Wrong("less than or equal to 2", "job.yaml", job=JOB + "generation: {temperature: 3}\n"),
    "section that is none": Wrong("such as data: {train", "job.yaml", job=data("rows.jsonl")),
    "unknown task": Wrong("one of nli, conversation", "job.yaml", job=JOB.replace("classification", "poetry")),
    "name that is no name": Wrong("letters, digits", "job.yaml", job=JOB + "name: a/b\n"),
    "unknown format": Wrong("'gguf:q8_0'", "job.yaml", job=JOB + "export: [gguf:q3_k]\n"),
    "unknown metric": Wrong("sparkle", "evaluation.metrics", job=JOB + "evaluation: {metrics: [sparkle]}\n"),
    "method not built": Wrong("nothing else is built yet", "job.yaml", job=JOB + "training: {method: kd}\n"),
    "loss not built": Wrong("'training.loss.forward_kl'", "job.yaml", job=JOB + "training: {loss: {forward_kl: 1}}\n"),
    "budget not built": Wrong("null; nothing else", "job.yaml", job=JOB + "generation: {budget_usd: 5}\n"),
    "list of teachers": Wrong("a name or a mapping", "job.yaml", job=teacher("[a, b]")),
    "password in the job": Wrong("holds no password", "job.yaml", job=teacher(SECRETIVE)),
    # data
    "no data file": Wrong("data file does not exist", "absent.jsonl", job=data("{train: absent.jsonl}")),
    "data is a folder": Wrong("folder, not a data file", "sub", job=data("{train: ./sub}"), files={"sub/x": ""}),
    "data of unknown kind": Wrong(".docx", "rows.docx", job=data("{train: rows.docx}"), files={"rows.docx": ""}),
    "bad JSON line": Wrong("not JSON", "rows.jsonl, line 41", rows=ROWS + '{"text": "x",\n'),
    "row not UTF-8": Wrong("not UTF-8", "rows.jsonl, line 41", rows=(ROWS + '{"text": "é"}').encode("latin-1")),
    "fields of another task": Wrong("premise", "rows.jsonl, line 1", job=JOB.replace("classification", "nli")),
    "roles out of order": Wrong(
        "roles take turns", "rows.jsonl, line 41", rows=ROWS + '{"messages": [{"role": "assistant", "content": "x"}]}\n'
    ),
    "no rows": Wrong("holds no rows", "rows.jsonl", rows=""),
    "too few rows": Wrong("too few rows", "data.train", rows="\n".join(LINES[:20])),
    # models
    "unknown teacher": Wrong("did you mean smollm2-135m-instruct", "'teacher'", job=teacher("smollm2-135m-instrukt")),
    "unknown student": Wrong("no model is called 'phi'", "'student'", job=student("phi")),
    "no key": Wrong(ABSENT_KEY, ABSENT_KEY, job=teacher(DEAD_ENDPOINT.replace("}", f", api_key_env: {ABSENT_KEY}}}"))),
    "student behind an endpoint": Wrong("model with weights", "'student'", job=student(DEAD_ENDPOINT)),
    "student without template": Wrong(
        "base has no chat template", "'student'", job=student("./base"),
        files={"base/config.json": CONFIG, "base/model.safetensors": ""},
    ),
    "student without weights": Wrong(
        "no weights", "base", job=student("./base"), files={"base/config.json": CONFIG, "base/chat_template.jinja": "x"}
    ),
    "student that is no GGUF": Wrong("not a GGUF file", "fake.gguf", job=student("fake.gguf"), files={"fake.gguf": "x" * 64}),
    "student that is no model": Wrong("not a model", "rows.jsonl", job=student("./rows.jsonl")),
    "more layers than there are": Wrong(
        "1..30", "student.shrink.layers", job=student(f"{{model: {MODEL}, shrink: {{layers: 31}}}}")
    ),
    "wrong catalogue": Wrong("'mine': an endpoint starts", "own.yaml", environment=OWN_CATALOG,
                             files={"own.yaml": "mine: {model: m, endpoint: ftp://host}\n"}),
    "catalogue not UTF-8": Wrong("not UTF-8", "own.yaml, line 1", environment=OWN_CATALOG, files={"own.yaml": b"\xe9: 1\n"}),
    "no catalogue": Wrong("catalogue file cannot be read", "own.yaml", environment=OWN_CATALOG),
    # arguments
    "unknown stage": Wrong("evalaute", "--until", arguments=("run", "job.yaml", "--until", "evalaute")),
}


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


@pytest.mark.parametrize("arguments", [["run"], ["run", "job.yaml", "--nope"], ["tune", "job.yaml"], ["init"]])
def test_arguments_that_make_no_command(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) <= 6
    assert "--help" in done.err
