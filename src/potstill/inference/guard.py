"""Runs a program, and ends it together with all that it started as soon as whoever started the guard is gone.

It is run as a file, in a session of its own, and needs the standard library alone. Its stdin is a pipe that nobody writes to:
the system closes it when the process at its other end goes, however that went.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 10.0


def main(command: list[str]) -> int:
    """Run the command; its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # the guard is in the group that it ends
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_parent, args=(child,), daemon=True).start()
    code = child.wait()
    os.killpg(0, signal.SIGTERM)  # what it left behind
    return code if code >= 0 else 1


def _end_with_parent(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGTERM)
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
