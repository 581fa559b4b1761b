"""A training that was killed ends with the same bits as one that was not, and never unpickles what it finds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from potstill.errors import CorruptFileError, JobCanceledError
from potstill.rows import Row, write_rows
from potstill.spec import AdapterSpec
from potstill.training import TrainingResult, train_student, watch
from potstill.training.checkpoints import checkpoint_path, mark_complete
from threads import one_thread
from training import killable

SPEC = killable.SPECS["plain"]
ADAPTER = AdapterSpec(r=4, dropout=0.2)  # dropout draws random numbers, so their state must come back too
Rows = tuple[list[Row], list[Row]]


@pytest.fixture(autouse=True)
def _one_thread_and_a_checkpoint_a_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    save_at_each_step(monkeypatch)
    with one_thread():
        yield


def save_at_each_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(watch, "CHECKPOINT_INTERVAL_S", 0.0)
    patch.setattr(watch, "SAVING_SHARE", float("inf"))


def save_no_state_at_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(watch, "SAVING_SHARE", 1e-9)


def train(student: Path, rows: Rows, out: Path, adapter: AdapterSpec | None = None, stop_at: int | None = None) -> Any:
    """The result and the steps that were logged; with `stop_at` the training is broken off after that step."""
    steps: list[int] = []

    def on_event(kind: str, values: dict[str, Any]) -> None:
        if kind == "progress":
            steps.append(values["step"])
            if values["step"] == stop_at:
                raise KeyboardInterrupt

    return train_student(student, *rows, out, SPEC, adapter=adapter, all_turns=True, on_event=on_event), steps


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tiny_student: Path, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingResult, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    with one_thread():
        result, steps = train(tiny_student, rows, out)
    assert steps == list(range(1, 19))
    return result, weights(out)


def killed(way: str, student: Path, rows: Path, out: Path, after: int) -> None:
    """Train in a process that is killed after it has logged this step."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parent.parent)
    }
    script = Path(__file__).with_name("killable.py")
    with subprocess.Popen(
        [sys.executable, script, student, rows, out, way], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == f"step {after}\n":
                process.kill()
                break
    assert process.returncode == -9
    assert not (out / "model.safetensors").exists()


@pytest.fixture
def files(rows: Rows, tmp_path: Path) -> Path:
    for name, part in zip(("train", "validation"), rows, strict=True):
        write_rows(tmp_path / f"{name}.jsonl", part)
    return tmp_path


def test_killed_and_resumed(
    tiny_student: Path, rows: Rows, files: Path, tmp_path: Path, undisturbed: tuple[TrainingResult, bytes]
) -> None:
    kill_after = 8  # of 18, within the second epoch
    out = tmp_path / "out"
    killed("plain", tiny_student, files, out, kill_after)
    result, steps = train(tiny_student, rows, out)
    # The step that was logged last may not have reached its checkpoint, those before did.
    assert steps[0] in (kill_after, kill_after + 1)
    assert weights(out) == undisturbed[1]
    assert result == undisturbed[0]


def test_a_student_of_distributions_and_layers_that_was_killed_twice_has_the_losses_of_one_that_was_not(
    tiny_student: Path, rows: Rows, files: Path, tmp_path: Path
) -> None:
    whole = killable.train("distribution", tiny_student, *rows, tmp_path / "whole", lambda *_: None)
    out = tmp_path / "out"
    for step in (3, 11):  # of 18, in the first epoch and the second, at one temperature and the other
        killed("distribution", tiny_student, files, out, step)
    resumed = killable.train("distribution", tiny_student, *rows, out, lambda *_: None)
    assert [point.loss for point in resumed.loss_curve] == [point.loss for point in whole.loss_curve]
    assert resumed.validation_curve == whole.validation_curve
    assert weights(out) == weights(tmp_path / "whole")


@pytest.fixture(scope="module")
def whole_adapter(tiny_student: Path, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingResult, bytes]:
    out = tmp_path_factory.mktemp("adapter")
    with one_thread():
        return train(tiny_student, rows, out, ADAPTER)[0], weights(out)


@pytest.mark.parametrize("last_checkpoint", [8, 12])  # within an epoch, and at the end of one (they have 6 steps)
def test_an_adapter_with_dropout_resumes_to_the_same_bits(
    tiny_student: Path, rows: Rows, tmp_path: Path, whole_adapter: tuple[TrainingResult, bytes], last_checkpoint: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny_student, rows, tmp_path, ADAPTER, stop_at=last_checkpoint + 1)
    result, steps = train(tiny_student, rows, tmp_path, ADAPTER)
    assert steps[0] == last_checkpoint + 1
    assert (result, weights(tmp_path)) == whole_adapter


def test_a_training_that_is_asked_to_stop_leaves_a_checkpoint_to_go_on_from(
    tiny_student: Path, rows: Rows, tmp_path: Path, undisturbed: tuple[TrainingResult, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "CHECKPOINT_INTERVAL_S", 3600.0)  # none but those of the epochs' ends and of the stop
    seen: list[tuple[str, float]] = []

    def on_event(kind: str, values: dict[str, Any]) -> None:
        seen.append((kind, values["epoch"]))

    with pytest.raises(JobCanceledError):
        train_student(
            tiny_student, *rows, tmp_path, SPEC, adapter=None, all_turns=True, on_event=on_event,
            should_stop=lambda: len([kind for kind, _ in seen if kind == "progress"]) >= 8,
        )
    assert [kind for kind, _ in seen].count("metric") == 1  # what was broken off was not validated as if it had ended
    result, steps = train(tiny_student, rows, tmp_path)
    assert steps[0] == 10  # asked at the ninth step, whose loss was not logged yet
    assert (result, weights(tmp_path)) == undisturbed


def test_an_epoch_too_short_for_a_state_leaves_its_weights_alone(
    tiny_student: Path, rows: Rows, tmp_path: Path, undisturbed: tuple[TrainingResult, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_no_state_at_all(monkeypatch)
    asked = iter([False, False, False, True])
    with pytest.raises(JobCanceledError):
        train_student(
            tiny_student, *rows, tmp_path, SPEC, adapter=None, all_turns=True, on_event=lambda *_: None,
            should_stop=lambda: next(asked),
        )
    with pytest.raises(KeyboardInterrupt):
        train(tiny_student, rows, tmp_path, stop_at=8)  # in the second epoch; the first ends at step 6
    kept = {path.name: (path / "optimizer.pt").exists() for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"checkpoint-4": True, "checkpoint-6": False}
    result, steps = train(tiny_student, rows, tmp_path)
    assert steps[0] == 5
    assert (result, weights(tmp_path)) == undisturbed


def test_without_a_state_to_go_on_from_a_training_begins_again(
    tiny_student: Path, rows: Rows, tmp_path: Path, undisturbed: tuple[TrainingResult, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_no_state_at_all(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_student, rows, tmp_path, stop_at=8)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-6"]
    result, steps = train(tiny_student, rows, tmp_path)
    assert steps[0] == 1
    assert (result, weights(tmp_path)) == undisturbed


def test_a_finished_training_is_published_again_without_a_step(
    tiny_student: Path, rows: Rows, tmp_path: Path, undisturbed: tuple[TrainingResult, bytes]
) -> None:
    train(tiny_student, rows, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    result, steps = train(tiny_student, rows, tmp_path)
    assert steps == []
    assert (result, weights(tmp_path)) == undisturbed


def test_a_torn_newest_checkpoint_is_passed_over_and_the_folder_may_have_moved(
    tiny_student: Path, rows: Rows, tmp_path: Path, undisturbed: tuple[TrainingResult, bytes]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny_student, rows, tmp_path / "here", stop_at=9)
    (tmp_path / "here").rename(tmp_path / "there")
    torn = checkpoint_path(tmp_path / "there" / "checkpoints", 8)
    (torn / "optimizer.pt").write_bytes((torn / "optimizer.pt").read_bytes()[:1000])
    result, steps = train(tiny_student, rows, tmp_path / "there")
    assert steps[0] == 7  # the best so far, at the first epoch's end, is the one before
    assert (result, weights(tmp_path / "there")) == undisturbed


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def broken_off(tiny_student: Path, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was broken off after its first epoch's checkpoint."""
    out = tmp_path_factory.mktemp("broken_off")
    with pytest.MonkeyPatch.context() as patch:
        save_at_each_step(patch)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_student, rows, out, stop_at=7)
    return out


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_cannot_run_code(tiny_student: Path, rows: Rows, tmp_path: Path, broken_off: Path, name: str) -> None:
    shutil.copytree(broken_off, tmp_path / "run")
    checkpoint = checkpoint_path(tmp_path / "run" / "checkpoints", 6)
    torch.save(_Bomb(tmp_path / "went off"), checkpoint / name)
    mark_complete(checkpoint)
    with pytest.raises(CorruptFileError):
        train(tiny_student, rows, tmp_path / "run")
    assert not (tmp_path / "went off").exists()
