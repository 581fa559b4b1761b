"""`potstill --help` lists what is built, and loads nothing that takes time."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from potstill import __version__

COMMANDS = ["run", "check", "curate", "init", "schema", "quickstart", "jobs", "models", "job", "journal"]
HEAVY = {"torch", "transformers", "aiohttp", "pydantic", "numpy", "scipy", "xllamacpp", "yaml", "orjson", "rich"}
TELL_MODULES = """
import atexit, sys
atexit.register(lambda: print("MODULES", *sys.modules))
from potstill.cli import main
main()
"""


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", TELL_MODULES, *arguments], capture_output=True, text=True, timeout=60)


def test_help_lists_the_built_commands() -> None:
    done = start("--help")
    assert done.returncode == 0, done.stderr
    listed = done.stdout.partition("Commands:\n")[2].partition("MODULES")[0]
    assert re.findall(r"^  (\S+)", listed, re.MULTILINE) == COMMANDS


# typer itself reads a command's own arguments by pydantic.
@pytest.mark.parametrize(
    ("arguments", "allowed"), [(["--help"], set()), (["--version"], set()), (["run", "--help"], {"pydantic"})]
)
def test_help_and_version_load_nothing_heavy(arguments: list[str], allowed: set[str]) -> None:
    done = start(*arguments)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.partition("MODULES ")[2].split())
    assert "typer" in modules
    assert (modules & HEAVY) - allowed == set()


def test_version() -> None:
    assert start("--version").stdout.startswith(f"{__version__}\n")


def test_without_a_command_the_help_is_shown() -> None:
    done = start()
    assert done.returncode == 2
    assert all(command in done.stdout + done.stderr for command in COMMANDS)
