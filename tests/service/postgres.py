"""A real PostgreSQL for the tests: Debian's programs, a data folder of their own, loopback only.

PostgreSQL refuses to run as root, so there it runs as the `postgres` user that Debian's package makes.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PASSWORD = "hunter2-of-the-database"


def programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@contextmanager
def server(bin_folder: Path) -> Iterator[str]:
    """Start a server, give the URL of its maintenance database without the database's name, and stop it."""
    with tempfile.TemporaryDirectory(prefix="potstill-postgres-") as name:
        folder, run = Path(name), _as_owner(Path(name))
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        data = folder / "data"
        run([bin_folder / "initdb", "-D", data, "-U", "tester", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        run([bin_folder / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"])
        try:
            yield f"postgresql://tester:{PASSWORD}@127.0.0.1:{port}"
        finally:
            run([bin_folder / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"])


def _as_owner(folder: Path) -> Any:
    """A function that runs a command as somebody whom PostgreSQL takes, who gets the folder."""
    options: dict[str, Any] = {"check": True, "capture_output": True, "cwd": folder, "timeout": 60}
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        options |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

    def run(command: list[Any]) -> None:
        # pg_ctl leaves the server behind with its outputs, so a pipe would never close.
        subprocess.run([str(part) for part in command], **{**options, "capture_output": False, "stdout": subprocess.DEVNULL,
                                                           "stderr": subprocess.DEVNULL})

    return run
