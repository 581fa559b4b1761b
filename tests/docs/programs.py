"""Programs of others that pages name, where they are not installed: each reads what it is given and lets llama.cpp answer.

`ollama create NAME -f MODELFILE` reads the Modelfile's instructions (github.com/ollama/ollama, docs/modelfile) and loads the
file behind FROM; `ollama run NAME PROMPT` answers under SYSTEM, and `llama-cli -m FILE -cnv --temp T -p PROMPT` answers too.
They tell that our files are there, well formed and loadable, and that the arguments are as these programs take them; what the
programs themselves make of them is not seen here.

    python programs.py ollama create shop -f Modelfile
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path

NAMES = ("ollama", "llama-cli")
_INSTRUCTION = re.compile(r'^(FROM|PARAMETER|SYSTEM|TEMPLATE)\s+("""(?:.*?)"""|[^\n]+)$', re.MULTILINE | re.DOTALL)


def install(folder: Path) -> None:
    """Write a launcher for each program that is not on the path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        launcher = folder / name
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
        launcher.chmod(0o755)


def read_modelfile(path: Path) -> tuple[Path, float, str]:
    """The weights' path, the temperature and the system prompt; anything that is no instruction is an error."""
    text = path.read_text(encoding="utf-8")
    found = {kind: value.strip().removeprefix('"""').removesuffix('"""') for kind, value in _INSTRUCTION.findall(text)}
    rest = _INSTRUCTION.sub("", text).strip()
    if rest:
        raise SystemExit(f"Error: no instruction: {rest!r}")
    name, value = found.get("PARAMETER", "temperature 0.8").split()
    if name != "temperature":
        raise SystemExit(f"Error: unknown parameter {name}")
    return (path.parent / found["FROM"]).resolve(), float(value), found.get("SYSTEM", "")


def answer(weights: Path, system: str, prompt: str, temperature: float) -> str:
    import xllamacpp

    if not weights.is_file():
        raise SystemExit(f"Error: no such file: {weights}")
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.verbosity, parameters.warmup = str(weights), 256, 0, False
    parameters.use_jinja = True
    messages = [{"role": "system", "content": system}] if system else []
    body = {"messages": [*messages, {"role": "user", "content": prompt}], "temperature": temperature, "max_tokens": 8}
    reply = xllamacpp.Server(parameters).handle_chat_completions(body)
    text: str = reply["choices"][0]["message"]["content"]
    return text


def ollama(arguments: list[str]) -> None:
    models = Path.cwd() / ".ollama.json"
    known = json.loads(models.read_text()) if models.is_file() else {}
    parser = argparse.ArgumentParser("ollama")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create")
    create.add_argument("name")
    create.add_argument("-f", required=True, type=Path)
    run = commands.add_parser("run")
    run.add_argument("name")
    run.add_argument("prompt")
    given = parser.parse_args(arguments)
    if given.command == "create":
        weights, temperature, system = read_modelfile(given.f)
        answer(weights, system, "hello", temperature)
        models.write_text(json.dumps({**known, given.name: [str(weights), temperature, system]}))
        print("success")  # noqa: T201
    else:
        weights, temperature, system = known[given.name]
        print(answer(Path(weights), system, given.prompt, temperature))  # noqa: T201


def llama_cli(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("llama-cli")
    parser.add_argument("-m", required=True, type=Path)
    parser.add_argument("-cnv", action="store_true")
    parser.add_argument("--single-turn", action="store_true")
    parser.add_argument("--temp", type=float, default=0.8)
    parser.add_argument("-sys", default="")
    parser.add_argument("-p", required=True)
    given = parser.parse_args(arguments)
    print(answer(given.m, given.sys, given.p, given.temp))  # noqa: T201


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    {"ollama": ollama, "llama-cli": llama_cli}[sys.argv[1]](sys.argv[2:])
