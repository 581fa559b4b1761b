"""The world that pages are run in: the catalogue's endpoints are a server on loopback, its students a tiny one.

Programs of others that pages name are stand-ins where they are not installed (`programs.py`). The teacher knows the answers of
all rows that lie in the page's folder, so that nothing is rejected that a good teacher would have got right.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
import yaml

from docs.pages import OUTPUT, Block, Page, commands, matches
from loopback import Messages
from potstill.catalog import entries
from potstill.cli import main
from potstill.rows import Record, read_records
from potstill.spec import TaskName, parse_job
from potstill.tasks import RowError, get_task

KEY = "a-key-that-only-tests-know"
_SHELL = frozenset("|&;<>$*?`(")


def user_catalogue(endpoint: str, student: Path) -> str:
    """The catalogue with every endpoint at this address, and every model of the hub in this folder."""
    mapped: dict[str, Any] = {}
    for name, entry in entries().items():
        if entry.package is not None:
            continue
        kept = entry.model_dump(mode="json", include={"price", "license", "aliases"}, exclude_none=True)
        if entry.endpoint is None:
            mapped[name] = {**kept, "path": str(student)}
        else:
            mapped[name] = {**kept, "model": entry.model, "endpoint": endpoint, "api_key_env": entry.api_key_env}
    return yaml.safe_dump(mapped)


def key_variables() -> set[str]:
    return {entry.api_key_env for entry in entries().values() if entry.api_key_env}


def teacher_of(folder: Callable[[], Path]) -> Callable[[Messages], str]:
    """A teacher that knows the rows of the folder that `folder` gives when it is asked."""
    known: dict[str, str] = {}

    def answer(messages: Messages) -> str:
        question = messages[-1]["content"]
        if question not in known:
            known.update(gold_answers(folder()))
        return known.get(question, f"This is about: {' '.join(question.split())[:60]}")

    return answer


def gold_answers(folder: Path) -> dict[str, str]:
    """What each row of the files in a folder asks last, with its gold answer, for all tasks that can read it."""
    found: dict[str, str] = {}
    files = [*folder.glob("*.jsonl"), *folder.glob("samples/*.jsonl"), *folder.glob("*.csv")]
    for path in files:
        for record in read_records(path):
            if isinstance(record, Record):
                for name in get_args(TaskName):
                    with contextlib.suppress(RowError):
                        row = get_task(name).row(record.data)
                        if row.references:
                            found[row.messages[-1].content] = row.references[-1]
    return found


@dataclass
class Reader:
    """Someone who reads pages and does what they say, in one folder."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    programs: Path
    namespace: dict[str, Any] = field(default_factory=dict)
    printed: str = ""

    def follow(self, page: Page) -> None:
        """Do every block of a page; a block that does not hold fails, naming the page and the line."""
        self.namespace = {"__name__": "__main__"}
        for block in page.blocks:
            if block.not_run is None:
                self._do(block, f"docs/{page.name}, line {block.line}", page)

    def _do(self, block: Block, where: str, page: Page) -> None:
        if block.kind == "console":
            done = commands(block)
            for number, (command, shown) in enumerate(done, 1):
                self._run(command, shown, block.exit_code if number == len(done) else 0, where)
        elif block.title == OUTPUT:
            assert matches(block.text, self.printed), f"{where}: shown and printed differ; printed:\n{self.printed}"
        elif block.title is not None:
            path = self.folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            self._execute(block.text, where)
        elif block.kind == "yaml":
            check_sections(block.text, where)
        else:
            check_rows(block.text, page.meta["task"], where)

    def _run(self, command: str, shown: str, code: int, where: str) -> None:
        ended, printed = self.shell(command)
        assert ended == code, f"{where}: `{command}` ended with {ended}; it printed:\n{printed}"
        if shown:
            assert matches(shown, printed), f"{where}: `{command}` printed something else:\n{printed}"
        assert KEY not in printed

    def shell(self, command: str) -> tuple[int, str]:
        """Its exit code and all it printed. `potstill` runs inside this process, which has loaded what it needs already."""
        if command.startswith("export "):
            self.monkeypatch.setenv(command.removeprefix("export ").partition("=")[0], KEY)
            return 0, ""
        if command.startswith("potstill ") and not _SHELL & set(command):
            return self._potstill(shlex.split(command))
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"], str(self.programs)))
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env={**os.environ, "PATH": path}, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=240,
        )
        return done.returncode, done.stdout

    def _potstill(self, arguments: list[str]) -> tuple[int, str]:
        self.monkeypatch.setattr(sys, "argv", arguments)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), printed.getvalue()

    def _execute(self, text: str, where: str) -> None:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, where, "exec"), self.namespace)  # noqa: S102 - this is what the page asks its reader to do
        self.printed = printed.getvalue()


def check_sections(text: str, where: str) -> None:
    """Sections of a job file, put over a job that has the required keys."""
    base = {"task": "text", "teacher": "deepseek-v3", "student": "phi-4-mini", "data": {"train": "rows.jsonl"}}
    parse_job({**base, **yaml.safe_load(text)}, source=where, folder=Path(), default_name="page")


def check_rows(text: str, task: str, where: str) -> None:
    """Rows of a task, one a line."""
    for line in text.splitlines():
        row = get_task(task).row(orjson.loads(line))
        assert row.messages[-1].role == "user", where
