"""The commands of the pages that take minutes, as a reader types them: with the embedded model, from nothing.

They are no part of a plain `pytest`; CI runs them after it (`pytest -m minutes`), and `make test` it runs itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from docs.pages import ROOT, all_pages, commands

INDEX_JOB = "potstill run classification.yaml"
RUN_HERE = {"potstill quickstart", INDEX_JOB}
RUN_BY_CI = {"make test"}


def type_in(command: str, folder: Path) -> str:
    """Run a command line as a user of this environment would; everything it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def nulls(value: Any, path: str = "") -> set[str]:
    """The places of a report that hold no figure."""
    if isinstance(value, dict):
        return {place for key, entry in value.items() for place in nulls(entry, f"{path}.{key}" if path else key)}
    return {path} if value is None else set()


def test_these_are_all_of_them() -> None:
    marked = {
        command for page in all_pages() for block in page.blocks if block.not_run == "takes minutes"
        for command, _ in commands(block)
    }
    assert marked == RUN_HERE | RUN_BY_CI
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert ci.index("make test") < ci.index("HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -m minutes")


@pytest.mark.minutes
@pytest.mark.timeout(1800)
def test_make_quickstart_distils_and_the_student_learns(tmp_path: Path, embedded_gguf: Path) -> None:
    """`make quickstart`, which is `potstill quickstart` in the project's own environment."""
    if not (ROOT / ".venv" / ".ready").is_file():
        pytest.skip("the environment was not built by make")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path)  # with its time: the environment is not older
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    printed = type_in("make quickstart", tmp_path)
    run = tmp_path / "runs" / "quickstart"
    report = json.loads((run / "report.json").read_text())
    assert f"report: {run / 'report.html'}" in printed
    assert report["headline"]["accuracy_gain"]["value"] > 0
    assert report["headline"]["accuracy_gain"]["p_value"] < 0.05
    assert report["best_constant"]["gain"]["value"] > 0
    assert report["best_constant"]["gain"]["p_value"] < 0.05
    assert not nulls(report["headline"])
    assert not nulls(report["models"])


@pytest.mark.minutes
@pytest.mark.timeout(1800)
def test_the_three_commands_of_the_front_page(tmp_path: Path, embedded_gguf: Path) -> None:
    type_in("potstill init classification", tmp_path)
    printed = type_in(INDEX_JOB, tmp_path)
    report = json.loads((tmp_path / "runs" / "classification" / "report.json").read_text())
    assert "report.html" in printed
    assert set(report["models"]) == {"teacher", "baseline", "distilled"}
    assert {model["accuracy"]["n"] for model in report["models"].values()} == {8}
