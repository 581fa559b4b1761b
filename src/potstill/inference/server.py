"""A model that a vLLM or SGLang server answers for, started on this machine when it is first asked and stopped with its engine.

What goes in: a model of the hub or a folder. What comes out: an engine whose identity is the model, not the port, so that a
journal outlives the server. What it costs: the minutes that a server takes to load a model, and only where a reply is asked for
that no journal holds. The server's output is kept in a file; it ends with this process, even if that is killed.

Sources: docs.vllm.ai/en/latest/cli/serve, docs.sglang.ai/advanced_features/server_arguments.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from potstill.catalog.model import ResolvedModel
from potstill.errors import InputError, MachineError
from potstill.inference import guard
from potstill.inference.completion import parse_completion
from potstill.inference.dialect import Server, told_by
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.identity import local_folder, model_identity
from potstill.inference.protocol import Capabilities, RawReply, Reply, Request, TransportError

START_WITHIN_S = 1800.0
TELL_EVERY_S = 30.0
POLL_S = 0.5
# A reply may wait its turn in the server's own queue for long; that the server is gone shows otherwise.
REPLY_WITHIN_S = 3600.0
DEFAULT_CONCURRENCY = 256  # what vLLM works on at once if nothing else is said
_PROGRAMS: Mapping[Server, tuple[str, str]] = {
    "vllm": ("POTSTILL_VLLM", "vllm serve"),
    "sglang": ("POTSTILL_SGLANG", "sglang serve"),
}
_SHOWN_LINES = 3


class ServedEngine:
    """Asks one model through a server of its own.

    Args:
        model: Of the hub or a folder; `engine` says which server.
        folder: Where the server's output is kept; None: among the files of the system that are thrown away.
        context: Tokens of context a request needs; bounded by the model's own window.
        concurrency: The requests that will be sent at once.
        say: Told how far the server is.

    Raises:
        InputError: the server's program is not there.
    """

    def __init__(
        self, model: ResolvedModel, *, folder: Path | None = None, context: int | None = None,
        concurrency: int | None = None, say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._kind: Server = "sglang" if model.engine == "sglang" else "vllm"
        self._program = server_program(self._kind)
        self._model, self._say = model, say
        self._identity = model_identity(model)
        self._context = min((size for size in (context, model.context_window) if size), default=None)
        self._concurrency = concurrency
        self._log = (folder or Path(tempfile.mkdtemp(prefix="potstill-"))) / f"{self._kind}.log"
        self._starting = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._endpoint: EndpointEngine | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._identity

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            choices=True, json_schema=True, local=False,
            max_concurrency=self._concurrency or DEFAULT_CONCURRENCY, context_window=self._context,
            logprobs=told_by(self._kind),
        )

    async def generate(self, request: Request) -> RawReply:
        """Ask once; the first request waits until the server is ready.

        Raises:
            TransportError: nothing came back, or not all of it.
            MachineError: the server does not start, or ended.
        """
        async with self._starting:
            if self._endpoint is None:
                self._endpoint = await self._start()
        try:
            return await self._endpoint.generate(request)
        except TransportError as error:
            if self._process is not None and await asyncio.to_thread(_has_ended, self._process):
                raise self._ended("ended while it was asked") from error
            raise

    def parse(self, raw: RawReply) -> Reply:
        return parse_completion(raw)

    async def aclose(self) -> None:
        """Stop the server."""
        if self._endpoint is not None:
            await self._endpoint.aclose()
            self._endpoint = None
        if self._process is not None:
            await asyncio.to_thread(_stop, self._process)
            self._process = None

    async def _start(self) -> EndpointEngine:
        port = _free_port()
        command = server_command(self._kind, self._program, self._model, port, self._context)
        self._say(f"{self._model.name}: starting {shlex.join(self._program)}; its output goes to {self._log}")
        self._process = await asyncio.to_thread(_start_guarded, command, self._log)
        try:
            await self._wait_until_ready(f"http://127.0.0.1:{port}/health")
        except BaseException:
            process, self._process = self._process, None
            await asyncio.shield(asyncio.to_thread(_stop, process))
            raise
        return EndpointEngine(
            f"http://127.0.0.1:{port}/v1", self._model.name, None, server=self._kind, say=self._say,
            timeout_s=REPLY_WITHIN_S, context_window=self._context,
        )

    async def _wait_until_ready(self, address: str) -> None:
        assert self._process is not None
        started = told = time.monotonic()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)) as session:
            while not await _answers(session, address):
                now = time.monotonic()
                if self._process.poll() is not None:
                    raise self._ended("ended before it was ready")
                if now - started > START_WITHIN_S:
                    raise self._ended(f"was not ready within {START_WITHIN_S:g} s")
                if now - told > TELL_EVERY_S:
                    told = now
                    self._say(f"{self._model.name}: not ready after {now - started:.0f} s; {' / '.join(self._last_lines(1))}")
                await asyncio.sleep(POLL_S)
        self._say(f"{self._model.name}: ready after {time.monotonic() - started:.0f} s")

    def _ended(self, how: str) -> MachineError:
        return MachineError(
            f"the {self._kind} server {how}", where=str(self._log), found=" / ".join(self._last_lines(_SHOWN_LINES)),
            hint="the file has all that it said; teacher.server_args gives it more arguments",
        )

    def _last_lines(self, count: int) -> list[str]:
        """What the server said last, or that it said nothing."""
        with self._log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
        return [line for line in lines if line][-count:] or ["it said nothing"]


def server_program(kind: Server) -> list[str]:
    """The program that serves, without its arguments.

    Raises:
        InputError: it is not there.
    """
    variable, default = _PROGRAMS[kind]
    program = shlex.split(os.environ.get(variable, "").strip() or default)
    if shutil.which(program[0]) is None:
        raise InputError(
            f"the program that engine: {kind} starts is not on this machine", found=f"no '{program[0]}' on PATH",
            expected=f"an installed {kind}, or its command in the environment variable {variable}, such as '{default}'",
            hint="a server that runs already is asked with 'endpoint' beside 'engine'",
        )
    return program


def server_command(kind: Server, program: Sequence[str], model: ResolvedModel, port: int, context: int | None) -> list[str]:
    """The whole command. Sampling is the job's alone, not what the model's generation_config.json has."""
    path = str(local_folder(model))
    if kind == "vllm":
        arguments = [path, "--generation-config", "vllm"]
        length = "--max-model-len"
    else:
        arguments = ["--model-path", path, "--sampling-defaults", "openai"]
        length = "--context-length"
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", model.name]
    arguments += [length, str(context)] if context else []
    arguments += ["--trust-remote-code"] if model.trust_remote_code else []
    return [*program, *arguments, *model.server_args]


def _start_guarded(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-I", str(guard.__file__), *command], stdin=subprocess.PIPE, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """A connection breaks a moment before the guard knows that the server is gone."""
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        return False
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The guard ends the server when its pipe closes."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(guard.GRACE_S + 5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def _answers(session: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with session.get(address) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
