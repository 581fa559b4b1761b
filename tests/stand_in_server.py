"""Stands in for vLLM or SGLang in tests: takes their command line, and serves the loopback endpoint on the port it is given.

`write_program(folder, "vllm")` makes it a program of that name. How it behaves stands in the environment variable STAND_IN:
nothing (it answers each question in capitals), "dies" (at the start), "hangs" (is never healthy), "refuses" (the model),
"breaks" (ends at the first question). It writes its process id and its arguments to the file that STAND_IN_NOTE names.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
from pathlib import Path

from loopback import Fault, LoopbackEndpoint, Messages, status


def write_program(folder: Path, name: str) -> Path:
    """An executable file of that name that starts the stand-in."""
    program = folder / name
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} "$@"\n')
    program.chmod(0o755)
    return program


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fault(messages: Messages, attempt: int) -> Fault | None:
    behaviour = os.environ.get("STAND_IN")
    if behaviour == "breaks":
        _say("CUDA error: device-side assert triggered")
        os._exit(1)
    return status(404, "The model does not exist.") if behaviour == "refuses" else None


async def _serve(port: int) -> None:
    async with LoopbackEndpoint(lambda messages: messages[-1]["content"].upper(), fault=_fault, port=port):
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--port", type=int)
    known, _ = parser.parse_known_args()
    note = os.environ.get("STAND_IN_NOTE")
    if note:
        Path(note).write_text(json.dumps({"pid": os.getpid(), "arguments": sys.argv[1:]}))
    _say("loading the weights")
    if os.environ.get("STAND_IN") == "dies":
        _say("torch.OutOfMemoryError: CUDA out of memory")
        sys.exit(3)
    if os.environ.get("STAND_IN") == "hangs":
        asyncio.run(asyncio.sleep(600))
    asyncio.run(_serve(known.port))


if __name__ == "__main__":
    main()
