"""The machine and the versions a report was measured with; no host name, user or path."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from potstill import __version__
from potstill.inference.cpus import available_cpus

_LIBRARIES = ("torch", "transformers", "peft", "xllamacpp", "gguf", "sacrebleu", "rouge-score", "math-verify", "scipy", "numpy")


def describe_environment() -> dict[str, Any]:
    """Processor, memory, system, and the versions of Python, Potstill and the libraries that figures depend on."""
    return {
        "cpu": _cpu_model(),
        "cpus": available_cpus(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "potstill": __version__,
        "libraries": {name: found for name in _LIBRARIES if (found := _installed(name)) is not None},
    }


def _cpu_model() -> str:
    """The processor's name: Linux tells it in /proc/cpuinfo alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
