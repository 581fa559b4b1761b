"""What benchmarks share: bars that a figure has to reach, and environments of peers."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Bar = dict[str, Any]


def at_least(what: str, figure: float, bar: float) -> Bar:
    return {"what": what, "figure": figure, "bar": f"at least {bar}", "holds": figure >= bar}


def at_most(what: str, figure: float, bar: float) -> Bar:
    return {"what": what, "figure": figure, "bar": f"at most {bar}", "holds": figure <= bar}


def show_bars(bars: Sequence[Bar]) -> None:
    for bar in bars:
        verdict = "holds" if bar["holds"] else "does not hold"
        print(f"  {bar['what']}: {bar['figure']:.3f}, bar {bar['bar']}: {verdict}", flush=True)


def peer_python(name: str, peers: Path, packages: Sequence[str]) -> Path:
    """The interpreter of a peer's own environment under `peers`, which is built from PyPI where it is not there yet."""
    home = peers / name
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not (home / "ready").exists():
        print(f"building an environment for {name} in {home}", flush=True)
        venv.create(home, clear=True, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        (home / "ready").touch()
    return python
