"""What the README says to type.

Not run here, because they take minutes: `make`, `potstill quickstart`, the benchmarks, and the job of `potstill init` with the
models that it names, whose rows are put before a teacher on loopback instead.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from docs.pages import ROOT, all_pages
from docs.world import Reader
from potstill.pipeline.samples import write_samples

TOKENS = MarkdownIt("commonmark").parse((ROOT / "README.md").read_text(encoding="utf-8"))
COMMANDS = [
    line.partition("#")[0].strip()
    for token in TOKENS
    if token.type == "code_block"
    for line in token.content.splitlines()
    if line.partition("#")[0].strip()
]
JOBS = [token.content for token in TOKENS if token.type == "fence" and token.info == "yaml"]


def commands_of(program: str) -> list[list[str]]:
    return [shlex.split(command) for command in COMMANDS if shlex.split(command)[0] == program]


def test_every_command_is_looked_at() -> None:
    assert {shlex.split(command)[0] for command in COMMANDS} == {"make", ".", "potstill", ".venv/bin/python"}
    assert {token.info for token in TOKENS if token.type == "fence"} <= {"yaml", "python"}


def test_what_it_says_of_python_is_on_a_page_that_is_run() -> None:
    run = {block.text for page in all_pages() for block in page.blocks if block.kind == "python" and block.not_run is None}
    assert {token.content for token in TOKENS if token.type == "fence" and token.info == "python"} <= run


def test_make_has_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    assert {argument for command in commands_of("make") for argument in command[1:]} <= targets
    assert {"quickstart", "test", "docs"} <= targets
    assert commands_of(".") == [[".", ".venv/bin/activate"]]
    assert re.search(r"^VENV \?= \.venv$", makefile, re.MULTILINE)


def test_the_benchmarks_are_there() -> None:
    scripts = [command[1] for command in commands_of(".venv/bin/python")]
    assert sorted(scripts) == sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").glob("*.py"))


def test_a_job_of_ones_own_is_written_checked_and_run(reader: Reader) -> None:
    for command in commands_of("potstill"):
        if command[1] == "quickstart":
            continue
        line = shlex.join(command)
        if command[1] == "run":
            job = reader.folder / command[2]
            chosen = {**yaml.safe_load(job.read_text()), "teacher": "deepseek-flash", "student": "phi-4-mini"}
            job.write_text(yaml.safe_dump(chosen))
            line += " --until curate"
        code, printed = reader.shell(line)
        assert code == 0, printed


@pytest.mark.parametrize("text", JOBS)
def test_the_job_file_is_one(text: str, reader: Reader) -> None:
    job = yaml.safe_load(text)
    _, rows = write_samples(job["task"], reader.folder)
    Path(job["data"]["train"]).write_text(rows.read_text())
    (reader.folder / "mine.yaml").write_text(text)
    for line in ("potstill check mine.yaml", "potstill run mine.yaml --until curate"):
        code, printed = reader.shell(line)
        assert code == 0, printed
    assert (reader.folder / "runs" / "mine" / "curated" / "train.jsonl").is_file()
