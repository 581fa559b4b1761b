"""One of the processes that train a student together; `potstill.pipeline.together` has them started.

`python -m potstill.pipeline.trainer_process REQUEST.json`: the request says what to train, and files beside it have the rows.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import orjson

from potstill.errors import InputError, PotstillError
from potstill.training.launching import STOP, error_file

_PATIENCE = timedelta(hours=4)  # the others wait while the first writes; one that died ends all at once anyway
_LOOK_EVERY_S = 1.0


def main(path: Path) -> int:
    """Train with the others; the exit code."""
    threading.Thread(target=_end_with_launcher, args=(os.getppid(),), daemon=True).start()
    with _own_line_out() as out:
        try:
            _train(path, out)
        except PotstillError as error:
            process = int(os.environ.get("RANK", "0"))
            error_file(path.parent, process).write_bytes(orjson.dumps(error.as_json()))
            return error.exit_code
    return 0


def _train(path: Path, out: IO[bytes]) -> None:
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env
    from torch import distributed

    from potstill.pipeline.events import EventLog
    from potstill.pipeline.folder import RunFolder
    from potstill.pipeline.progress import Silent
    from potstill.pipeline.stage import Context
    from potstill.pipeline.teaching import teaching_of
    from potstill.pipeline.together import Assignment, train

    # Weights in the hub's layout, and a state that is read without unpickling; the backend depends on it.
    os.environ["FSDP_STATE_DICT_TYPE"] = "FULL_STATE_DICT"
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    state = PartialState(on_cpu, timeout=_PATIENCE)  # picks this process's GPU, where a teacher beside the student goes, too
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != started:
        raise InputError(
            "the processes do not find each other", where="training.launch", found=f"{started} were started",
            expected="a configuration that fits this machine",
            hint="accelerate's own ways need GPUs; without any, training.processes: 2 trains in two processes",
        )
    work = Assignment.read(path)

    def tell(line: dict[str, Any]) -> None:
        if state.is_main_process:
            out.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY))
            out.flush()

    context = None
    if work.taught is not None:
        job, root = work.taught
        context = Context(job, RunFolder(root), EventLog(RunFolder(root).events), Silent())
    with nullcontext() if context is None else teaching_of(context, work.student) as teaching:
        result = train(
            work, None, on_event=lambda kind, values: tell({"event": kind, "values": values}),
            should_stop=(path.parent / STOP).exists, teaching=teaching,
        )
    tell({"result": result})
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def _own_line_out() -> Iterator[IO[bytes]]:
    """stdout for what is told; what libraries print goes to stderr instead."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        yield out


def _end_with_launcher(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
