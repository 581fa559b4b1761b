"""A fingerprint depends on contents, settings and the stage's version, and on nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from potstill.pipeline.fingerprint import digests, fingerprint, unchanged
from potstill.pipeline.folder import RunFolder

INPUTS: dict[str, Any] = {"settings": {"learning_rate": 2e-5, "batch_size": 2}, "rows": {"rows/train.jsonl": "ab"}}


def test_equal_inputs_give_equal_fingerprints_in_any_order() -> None:
    turned = {"rows": INPUTS["rows"], "settings": dict(reversed(INPUTS["settings"].items()))}
    assert fingerprint("train", 1, INPUTS) == fingerprint("train", 1, turned)


@pytest.mark.parametrize(
    ("stage", "version", "inputs"),
    [
        ("export", 1, INPUTS),
        ("train", 2, INPUTS),
        ("train", 1, {**INPUTS, "rows": {"rows/train.jsonl": "ac"}}),
        ("train", 1, {**INPUTS, "settings": {"learning_rate": 2.1e-5, "batch_size": 2}}),
        ("train", 1, {**INPUTS, "more": None}),
    ],
)
def test_every_part_counts(stage: str, version: int, inputs: dict[str, Any]) -> None:
    assert fingerprint(stage, version, inputs) != fingerprint("train", 1, INPUTS)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.rows.mkdir(parents=True)
    (run.rows / "train.jsonl").write_text("one\n")
    (run.rows / "test.jsonl").write_text("two\n")
    return run


def test_digests_are_by_the_path_inside_the_run(folder: RunFolder) -> None:
    found = digests(folder, [folder.rows / "train.jsonl", folder.rows / "absent.jsonl", folder.rows / "test.jsonl"])
    assert list(found) == ["rows/test.jsonl", "rows/train.jsonl"]
    assert len(set(found.values())) == 2


def test_a_moved_run_is_unchanged(folder: RunFolder, tmp_path: Path) -> None:
    recorded = digests(folder, folder.rows.iterdir())
    shutil.move(folder.root, tmp_path / "elsewhere")
    moved = RunFolder(tmp_path / "elsewhere")
    assert unchanged(moved, recorded)
    assert digests(moved, moved.rows.iterdir()) == recorded


def test_another_content_or_a_missing_file_is_a_change(folder: RunFolder) -> None:
    recorded = digests(folder, folder.rows.iterdir())
    (folder.rows / "more.jsonl").write_text("a file that no stage recorded")
    assert unchanged(folder, recorded)
    (folder.rows / "train.jsonl").write_text("One\n")
    assert not unchanged(folder, recorded)
    (folder.rows / "train.jsonl").unlink()
    assert not unchanged(folder, recorded)
