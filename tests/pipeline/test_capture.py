"""Whole jobs whose student learns from the teacher's distribution: captured by a pass, told by an endpoint, or live."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from loopback import Messages, serve_in_thread
from pipeline.jobs import events
from pipeline.test_check import job, look, student_folder, write_rows
from pipeline.test_correct import job_of
from potstill.errors import InputError, JobFailedError
from potstill.pipeline.checks.seen import Seen
from potstill.pipeline.checks.signals import look_at_signals
from potstill.pipeline.progress import Silent
from potstill.pipeline.run import run_job
from potstill.spec import JobSpec
from telling import TellingEndpoint, TellingTeacher
from threads import one_thread

pytest.importorskip("xllamacpp")
KD = {"method": "kd", "num_epochs": 1, "batch_size": 8, "learning_rate": 1e-2}


def run(job: JobSpec, root: Path) -> list[dict[str, Any]]:
    """The events of this run alone."""
    before = len(events(root)) if root.exists() else 0
    with one_thread():
        run_job(job, root, Silent(), until="train")
    return events(root)[before:]


def done(of_run: list[dict[str, Any]]) -> list[str]:
    return [event["stage"] for event in of_run if event["event"] == "finished"]


def training_of(root: Path) -> dict[str, Any]:
    return orjson.loads((root / "student" / "training.json").read_bytes())


@pytest.fixture(scope="module")
def captured(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A run of a corrected teacher, which knows what it says; and its events."""
    home = tmp_path_factory.mktemp("captured")
    return home, run(job_of(home, tiny_student, training=KD), home / "run")


def test_the_teacher_reads_the_answers_once_and_the_student_follows(captured: tuple[Path, list[dict[str, Any]]]) -> None:
    home, of_run = captured
    assert done(of_run) == ["prepare", "correct", "generate", "curate", "capture", "train"]
    training = training_of(home / "run")
    texts = training["train_texts"] + training["validation_texts"]
    assert of_run[-2]["summary"].keys() == {"best_validation_loss", "best_epoch"}
    capture = next(event for event in of_run if event["event"] == "finished" and event["stage"] == "capture")
    assert capture["summary"]["captured"] == texts
    assert training["train_untaught"] == []
    steps = [event for event in of_run if event["event"] == "step" and event["stage"] == "train"]
    assert all(set(step["parts"]) == {"forward_kl", "agreement"} for step in steps)
    assert {"grad_norm", "tokens_per_s", "memory_bytes"} <= steps[0].keys()
    assert training["validation_curve"][0]["parts"].keys() == {"forward_kl", "agreement"}


def test_another_training_reads_the_same_signals_and_new_rows_are_captured_alone(
    captured: tuple[Path, list[dict[str, Any]]], tiny_student: Path
) -> None:
    home, _ = captured
    other = job_of(home, tiny_student, training={**KD, "loss": {"reverse_kl": 1.0, "ce": 0.1}})
    assert done(run(other, home / "run")) == ["train"]
    assert training_of(home / "run")["loss_curve"][0]["parts"].keys() == {"ce", "reverse_kl", "agreement"}
    hotter = job_of(home, tiny_student, training={**KD, "temperature": 2.0})
    assert done(run(hotter, home / "run")) == ["capture", "train"]
    assert len(list((home / "run" / "signals").iterdir())) == 2


def test_beside_the_student_nothing_is_kept(
    captured: tuple[Path, list[dict[str, Any]]], tiny_student: Path
) -> None:
    home, _ = captured
    loss = {"forward_kl": 1.0, "hidden": 0.1, "attention": 0.1}
    job = job_of(home, tiny_student, training={**KD, "loss": loss, "signal": {"source": "live"}})
    assert done(run(job, home / "run")) == ["train"]
    assert training_of(home / "run")["loss_curve"][0]["parts"].keys() == {*loss, "agreement"}


def test_hidden_states_are_kept_too_and_read_once(captured: tuple[Path, list[dict[str, Any]]], tiny_student: Path) -> None:
    home, _ = captured
    training = {**KD, "loss": {"forward_kl": 1.0, "hidden": 0.1}}
    assert done(run(job_of(home, tiny_student, training=training), home / "run")) == ["capture", "train"]
    assert training_of(home / "run")["loss_curve"][0]["parts"].keys() == {"forward_kl", "hidden", "agreement"}
    (store,) = (home / "run" / "signals").glob("hidden-*")
    files = {path: path.stat().st_size for path in store.glob("*.sig")}
    again = job_of(home, tiny_student, training={**training, "learning_rate": 2e-2})
    assert done(run(again, home / "run")) == ["train"]
    assert {path: path.stat().st_size for path in store.glob("*.sig")} == files


WORDS = {"bell": "sound", "lamp": "light"}
QUESTIONS = [{"question": f"What does {word} {number} give?", "answer": WORDS[word]} for number in range(30) for word in WORDS]


def knows(messages: Messages) -> str:
    return next(answer for word, answer in WORDS.items() if word in messages[-1]["content"])


def reasons(messages: Messages) -> str:
    """JSON where it is asked for, else a marked last line."""
    if "JSON" in messages[0]["content"]:
        return orjson.dumps({"reasoning": "I know these things.", "answer": knows(messages)}).decode()
    return f"I know these things.\nAnswer: {knows(messages)}"


def endpoint_job(home: Path, student: Path, address: str, **values: Any) -> JobSpec:
    teacher = {"model": "the-model", "endpoint": address, "concurrency": 2, **values.pop("teacher", {})}
    return job_of(home, student, QUESTIONS, teacher=teacher, training=KD, **values)


def telling(model: Path) -> TellingTeacher:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from potstill.templates import ChatTemplate

    network = AutoModelForCausalLM.from_pretrained(model).eval()
    return TellingTeacher(network, AutoTokenizer.from_pretrained(model), ChatTemplate.from_folder(model))


def test_an_endpoint_tells_its_probabilities_with_its_answers(tiny_student: Path, tmp_path: Path) -> None:
    with serve_in_thread(knows, TellingEndpoint, teacher=telling(tiny_student)) as server:
        job = endpoint_job(tmp_path, tiny_student, server.base_url)
        of_run = run(job, tmp_path / "run")
        asked = len(server.requests)
        assert {request.body.get("top_logprobs") for request in server.requests} == {20}
        assert done(of_run) == ["prepare", "generate", "curate", "capture", "train"]
        training = training_of(tmp_path / "run")
        assert training["train_untaught"] == []
        divergence = training["loss_curve"][0]["parts"]["forward_kl"]
        assert divergence == pytest.approx(0, abs=1e-4)  # the teacher is the untrained student itself
        assert done(run(job, tmp_path / "run")) == []
        assert len(server.requests) == asked


def test_vllm_is_asked_about_answers_that_it_did_not_write_so(tiny_student: Path, tmp_path: Path) -> None:
    """Where it reasons before it answers, the student learns an answer that is but a part of what it wrote."""
    generation = {"chain_of_thought": True, "max_tokens": 64, "temperature": 0.0}
    with serve_in_thread(reasons, TellingEndpoint, teacher=telling(tiny_student), style="vllm") as server:
        job = endpoint_job(tmp_path, tiny_student, server.base_url, teacher={"engine": "vllm"}, generation=generation)
        of_run = run(job, tmp_path / "run")
        asked = len(server.prompts)
        training = training_of(tmp_path / "run")
        assert asked == training["train_texts"] + training["validation_texts"]
        assert training["train_untaught"] == []
        # What was paid for survives: the store may go, the journal has the replies.
        shutil.rmtree(tmp_path / "run" / "signals")
        assert done(run(job, tmp_path / "run"))[0] == "capture"
        assert len(server.prompts) == asked
    assert done(of_run)[-2:] == ["capture", "train"]


def test_an_endpoint_that_tells_nothing_ends_the_job_with_the_reason(tiny_student: Path, tmp_path: Path) -> None:
    with serve_in_thread(knows) as server, pytest.raises(JobFailedError, match="told no probabilities") as caught:
        run(endpoint_job(tmp_path, tiny_student, server.base_url), tmp_path / "run")
    assert "no log-probabilities were told with the reply" in str(caught.value.found)


def test_what_cannot_be_is_said_before_anything_is_paid_for(tiny_student: Path, tmp_path: Path) -> None:
    write_rows(tmp_path)
    endpoint = {"model": "m", "endpoint": "http://127.0.0.1:9"}
    refused: list[tuple[Any, dict[str, Any], str]] = [
        ({**endpoint, "engine": "anthropic"}, {}, "Anthropic's protocol"),
        ({**endpoint, "batch": True}, {}, "batches"),
        (endpoint, {"signal": {"source": "live"}}, "beside the student"),
        (endpoint, {"signal": {"encoding": "counts"}}, "not draws"),
        (endpoint, {"signal": {"draws": 50}}, "none is drawn from the others"),
        (endpoint, {"temperature": 2.0}, "temperature 1"),
        (endpoint, {"loss": {"forward_kl": 1, "hidden": 1}}, "nothing of the teacher's layers"),
        ([endpoint, {**endpoint, "model": "n"}], {}, "2 teachers"),
    ]
    student = {"path": str(tiny_student)}
    for teacher, training, words in refused:
        error = look(tmp_path, teacher=teacher, student=student, training={**KD, **training})["signals"].error
        assert error is not None
        assert words in f"{error.what} {error.found}"
    for training in (KD, {**KD, "signal": {"draws": 0}}):
        assert look(tmp_path, teacher=endpoint, student=student, training=training)["signals"].error is None
    own = look(tmp_path, teacher={"path": str(tiny_student)}, student=student, training=KD)["signals"]
    assert own.text == "teacher and student have the same tokens"
    layered = {**KD, "loss": {"forward_kl": 1, "hidden": 0.1}}
    room = look(tmp_path, teacher={"path": str(tiny_student)}, student=student, training=layered)["signals"].text
    assert room == "hidden states: 0.1 kB an answer token, at most 2 MB on the disk"
    other = renumbered(tiny_student, tmp_path / "other")
    error = look(tmp_path, teacher={"path": str(other)}, student=student, training=KD)["signals"].error
    assert error is not None
    assert "2 differ" in str(error.found)


def test_a_teacher_that_is_read_along_with_has_to_fit_into_memory(tiny_student: Path, tmp_path: Path) -> None:
    write_rows(tmp_path)
    teacher = {"path": str(student_folder(tmp_path / "large", 10**12))}
    for training, fits in ((KD, False), ({}, True)):
        error = look(tmp_path, teacher=teacher, student={"path": str(tiny_student)}, training=training)["memory"].error
        assert (error is None) == fits
        assert error is None or error.what == "the teacher does not fit into memory with all its weights"


def test_a_teacher_that_caps_its_logits_is_found_before_anything_is_paid_for(tiny_student: Path, tmp_path: Path) -> None:
    write_rows(tmp_path)
    capped = Path(shutil.copytree(tiny_student, tmp_path / "capped"))
    config = orjson.loads((capped / "config.json").read_bytes())
    (capped / "config.json").write_bytes(orjson.dumps({**config, "final_logit_softcapping": 30.0}))
    for training, refused in ((KD, True), ({}, False)):
        found = look(tmp_path, teacher={"path": str(capped)}, student={"path": str(tiny_student)}, training=training)
        errors = [one.error for subject, one in found.items() if subject == "signals" and one.error is not None]
        assert [error.found for error in errors] == (["final_logit_softcapping: 30.0"] if refused else [])


def test_the_cap_of_a_gguf_file_stands_in_its_header(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "capped.gguf", "gemma2")
    writer.add_final_logit_softcapping(30.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InputError, match="changes its logits") as caught:
        list(look_at_signals(Seen(job(tmp_path, teacher={"path": "capped.gguf"}, training=KD))))
    assert caught.value.found == "final_logit_softcapping: 30.0"


def renumbered(model: Path, folder: Path) -> Path:
    """The same model under a tokenizer in which two tokens have changed their numbers: as wide as before, and another."""
    shutil.copytree(model, folder)
    file = folder / "tokenizer.json"
    settings = orjson.loads(file.read_bytes())
    vocabulary = settings["model"]["vocab"]
    one, other = "Ġthe", "Ġand"
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    file.write_bytes(orjson.dumps(settings))
    return folder
