"""Start the worker process that measures one model, and follow it.

The worker starts from nothing, so that its memory is the model's, and inherits the environment, which is how keys reach it. It
reads a pipe that this process holds open: when this process dies, however it dies, the pipe closes and the worker ends.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO

import orjson

from potstill.errors import JobFailedError, PotstillError, error_of
from potstill.evaluation.predictions import Measurement, Profile, read_profile

_KEPT_LINES = 40  # of the worker's stderr: engines write much there, and only the end explains a failure


def run_worker(measurement: Measurement, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Profile:
    """Measure one model in a fresh process; its predictions and profile are on disk when this returns.

    Args:
        on_progress: Called with the number of rows done and of all rows.

    Raises:
        PotstillError: the worker failed; the same error as it met, or JobFailedError with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="potstill-") as folder:
        specification = Path(folder) / "measurement.json"
        specification.write_bytes(measurement.to_json())
        worker = subprocess.Popen(
            [sys.executable, "-m", "potstill.evaluation.worker", str(specification)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert worker.stdout is not None
        assert worker.stderr is not None
        last_lines: deque[bytes] = deque(maxlen=_KEPT_LINES)
        reader = threading.Thread(target=_drain, args=(worker.stderr, last_lines), daemon=True)
        reader.start()
        try:
            for line in worker.stdout:
                progress = orjson.loads(line)
                on_progress(progress["done"], progress["total"])
            code = worker.wait()
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
            reader.join()
            for pipe in (worker.stdin, worker.stdout, worker.stderr):
                if pipe is not None:
                    pipe.close()
    if code != 0:
        raise _failure(measurement, code, [line.decode("utf-8", errors="replace").rstrip() for line in last_lines])
    return read_profile(measurement.profile)


def _drain(stream: IO[bytes], last_lines: deque[bytes]) -> None:
    last_lines.extend(stream)


def _failure(measurement: Measurement, code: int, last_lines: list[str]) -> PotstillError:
    """The error that the worker met, or what is left to say about a worker that could not tell."""
    reported = next((error for error in map(_read_error, reversed(last_lines)) if error is not None), None)
    if reported is not None:
        return reported
    what = f"measuring the {measurement.label} model ({measurement.model.name}) failed"
    if code < 0:
        hint = "most often the machine ran out of memory" if code == -9 else None
        return JobFailedError(what, found=f"its process was ended by signal {-code}", hint=hint)
    return JobFailedError(what, found=" | ".join(line for line in last_lines if line)[-280:] or f"exit code {code}")


def _read_error(line: str) -> PotstillError | None:
    """The error in a line that the worker wrote, of the class it had there."""
    if not line.startswith('{"error":'):
        return None
    try:
        return error_of(orjson.loads(line))
    except orjson.JSONDecodeError:
        return None
