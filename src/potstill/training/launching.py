"""Start the processes that train one student together, and follow them.

torch's launcher starts them, or accelerate's where the user has a configuration of its own for it: FSDP, DeepSpeed and the rest
of what that may say are accelerate's business. The first process tells what it does as JSON lines; what libraries print goes to
a log. Everything ends with this process, however it ends: a guard holds a pipe to it, and each process looks for its launcher.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import psutil

from potstill.errors import InputError, JobFailedError, MissingExtraError, PotstillError, error_of
from potstill.inference import guard
from potstill.spec import TrainingSpec
from potstill.yaml_files import read_mapping

OnEvent = Callable[[str, dict[str, Any]], None]
STOP = "stop"  # a file of this name beside the request asks the processes to stop
_LOOK_EVERY_S = 0.5
_SHOWN_LINES = 3
_KILLED = "-9 (pid:"  # how a launcher's summary has a process that the system killed


@dataclass(frozen=True, slots=True)
class Launch:
    """processes: how many, on this machine, on_cpu: it has no GPU. file: a configuration of accelerate's instead."""

    processes: int = 0
    on_cpu: bool = False
    file: Path | None = None

    def command(self, module: str, argument: str) -> list[str]:
        """What starts `python -m module argument` in all of them."""
        if self.file is not None:
            launcher = ["accelerate.commands.launch", "--config_file", str(self.file)]
        else:
            launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes)]
        return [sys.executable, "-m", *launcher, "-m", module, argument]


def launch_of(spec: TrainingSpec) -> Launch | None:
    """How a training starts its processes; None where it is one, which is this.

    Raises:
        MissingExtraError: torch or accelerate is not installed.
        InputError: there are fewer GPUs than processes, or the file is no configuration of one machine.
    """
    try:
        import accelerate  # noqa: F401
        import torch
    except ImportError as error:
        raise MissingExtraError("train", error.name or "torch") from error
    if spec.launch is not None:
        return _launch_by(Path(spec.launch))
    gpus = torch.cuda.device_count()
    processes = max(gpus, 1) if spec.processes == "auto" else spec.processes
    if 0 < gpus < processes:
        raise InputError(
            "more processes than GPUs", where="training.processes", found=str(processes), expected=f"at most {gpus}",
            hint="two processes that share a GPU would wait for each other",
        )
    return Launch(processes, on_cpu=gpus == 0) if processes > 1 else None


def _launch_by(file: Path) -> Launch:
    given = read_mapping(
        file, what="the launch file (training.launch)", expected="what accelerate config writes",
        hint=f"accelerate config --config_file {file.name} writes one",
    )
    if given.get("num_machines", 1) != 1:
        raise InputError(
            "a training is started on one machine", where=f"{file}, key 'num_machines'", found=str(given["num_machines"]),
            expected="1",
        )
    return Launch(file=file)


def run_together(
    module: str, request: Path, launch: Launch, log: Path, on_event: OnEvent, should_stop: Callable[[], bool]
) -> Mapping[str, Any]:
    """Run `python -m module request` in all processes; what the first gives as its result.

    Args:
        module: Writes to stdout, in the first process, {"event": kind, "values": {...}} and at last {"result": {...}}, each a
            line; stops where a file `STOP` appears beside the request, and leaves errors there (`error_file`).
        log: Gets what else is printed, by launchers on stdout too.
        should_stop: Asked about twice a second.

    Raises:
        PotstillError: a process met it.
        JobFailedError: a process ended without a word.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    result: Mapping[str, Any] | None = None
    log.unlink(missing_ok=True)
    with log.open("ab", buffering=0) as output:
        team = subprocess.Popen(
            [sys.executable, "-I", str(guard.__file__), *launch.command(module, str(request))], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=output, start_new_session=True, env=_environment(launch),
        )
        assert team.stdin is not None
        assert team.stdout is not None
        try:
            for line in _lines(team.stdout, lambda: _ask_to_stop(request, should_stop)):
                if line.startswith(b'{"event":'):
                    told = orjson.loads(line)
                    on_event(told["event"], told["values"])
                elif line.startswith(b'{"result":'):
                    result = orjson.loads(line)["result"]
                else:
                    output.write(line)
        finally:
            team.stdin.close()  # where they are not done, the guard ends them
            code = team.wait()
            team.stdout.close()
    if code != 0 or result is None:
        raise _failure(request.parent, log, code)
    return result


def error_file(folder: Path, process: int) -> Path:
    """Where a process leaves the error that it met."""
    return folder / f"error-{process:06d}.json"


def _environment(launch: Launch) -> dict[str, str]:
    """Processes of one machine share its cores, of which torch's launcher would give one to each; checkpoints run no code."""
    environment = {**os.environ, "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
    if launch.file is None:
        cores = psutil.cpu_count(logical=False) or 1
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // launch.processes)))
        environment["ACCELERATE_USE_CPU"] = str(launch.on_cpu).lower()
    return environment


def _ask_to_stop(request: Path, should_stop: Callable[[], bool]) -> None:
    if should_stop():
        (request.parent / STOP).touch()


def _lines(stream: IO[bytes], between: Callable[[], None]) -> Iterator[bytes]:
    """The lines of a stream; `between` is called after each, and while there is none."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=_LOOK_EVERY_S)
        except queue.Empty:
            between()
            continue
        if line is None:
            return
        yield line
        between()


def _failure(folder: Path, log: Path, code: int) -> PotstillError:
    """The error of the first process that left one, or what is left to say."""
    for file in sorted(folder.glob("error-*.json")):
        return error_of(orjson.loads(file.read_bytes()))
    text = log.read_bytes()[-65_536:].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if "Error: " in line] or lines or [f"exit code {code}"]
    hint = "most often the machine ran out of memory" if _KILLED in text else "the file has all that they said"
    return JobFailedError(
        "a process of the training ended before it was done", where=str(log), found=" / ".join(said[-_SHOWN_LINES:]), hint=hint,
    )
