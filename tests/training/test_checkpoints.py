"""A checkpoint that a kill or a copy left in pieces does not count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from potstill.errors import CorruptFileError
from potstill.training.checkpoints import is_complete, keep_only, mark_complete, newest_checkpoint, steps_needed


def write(folder: Path, step: int, best: int | None = None, *, with_state: bool = True) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights" * 100)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_global_step": best}))
    if with_state:
        (checkpoint / "rng_state.pth").write_bytes(b"random")
    mark_complete(checkpoint)
    return checkpoint


def test_the_latest_step_counts_as_a_number(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    write(tmp_path, 9)
    latest = write(tmp_path, 10)
    assert newest_checkpoint(tmp_path) == latest


@pytest.mark.parametrize("damage", ["no list", "half a list", "another list", "short file", "missing file"])
def test_an_incomplete_one_is_passed_over(tmp_path: Path, damage: str) -> None:
    whole, broken = write(tmp_path, 50), write(tmp_path, 100)
    if damage == "no list":
        (broken / "complete.json").unlink()
    elif damage == "half a list":
        (broken / "complete.json").write_text('{"model.sa')
    elif damage == "another list":
        (broken / "complete.json").write_text('["model.safetensors"]')
    elif damage == "short file":
        (broken / "model.safetensors").write_bytes(b"weig")
    else:
        (broken / "model.safetensors").unlink()
    assert not is_complete(broken)
    assert newest_checkpoint(tmp_path) == whole


def test_one_whose_best_is_gone_is_passed_over(tmp_path: Path) -> None:
    first, best = write(tmp_path, 10), write(tmp_path, 20, best=20)
    write(tmp_path, 30, best=20)
    (best / "model.safetensors").unlink()
    assert newest_checkpoint(tmp_path) == first


def test_weights_alone_are_nothing_to_go_on_from(tmp_path: Path) -> None:
    write(tmp_path, 10, best=10, with_state=False)
    assert newest_checkpoint(tmp_path) is None
    latest = write(tmp_path, 15, best=10)
    write(tmp_path, 20, best=20, with_state=False)
    assert newest_checkpoint(tmp_path) == latest
    assert steps_needed(tmp_path) == {10, 15}


@pytest.mark.parametrize("step", [10, 20])
def test_one_that_was_changed_is_an_error(tmp_path: Path, step: int) -> None:
    """A kill leaves files short; the same length with other contents is damage, in the best checkpoint as in the last."""
    write(tmp_path, 10, best=10)
    write(tmp_path, 20, best=10)
    file = tmp_path / f"checkpoint-{step}" / "model.safetensors"
    file.write_bytes(b"WEIGHTS" * 100)
    with pytest.raises(CorruptFileError) as caught:
        newest_checkpoint(tmp_path)
    assert caught.value.where == str(file)
    assert f"delete checkpoint-{step}" in str(caught.value.hint)


def test_only_the_named_steps_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write(tmp_path, step)
    keep_only(tmp_path, {10, 30})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-30"]
