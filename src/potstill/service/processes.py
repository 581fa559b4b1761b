"""Processes of jobs, looked at from outside."""

from __future__ import annotations

from contextlib import suppress

import psutil

_PATIENCE_S = 10.0


def end_process(pid: int) -> bool:
    """End a process of Potstill and those that it started; False where the number is none of ours (any more)."""
    try:
        process = psutil.Process(pid)
        if not any("potstill" in argument for argument in process.cmdline()):
            return False
        family = [*process.children(recursive=True), process]
    except psutil.Error:
        return False
    for member in family:
        _tell(member, kill=False)
    _, left = psutil.wait_procs(family, timeout=_PATIENCE_S)
    for member in left:
        _tell(member, kill=True)
    psutil.wait_procs(left, timeout=_PATIENCE_S)
    return True


def _tell(process: psutil.Process, *, kill: bool) -> None:
    with suppress(psutil.NoSuchProcess):  # it has ended by itself
        process.kill() if kill else process.terminate()
