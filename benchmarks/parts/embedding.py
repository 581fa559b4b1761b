"""An embedding model for benchmarks, in an environment of its own (embedding_worker.py)."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parts.arms import peer_python

NAME, PACKAGES = "wordllama", ("wordllama==0.4.0.post1",)


def embedded(texts: Sequence[str], peers: Path) -> NDArray[np.float32]:
    """A vector of norm 1 for each text."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "texts.jsonl", Path(folder) / "vectors.npy"
        given.write_text("".join(f"{json.dumps(text)}\n" for text in texts), encoding="utf-8")
        worker = Path(__file__).with_name("embedding_worker.py")
        subprocess.run([str(peer_python(NAME, peers, PACKAGES)), str(worker), str(given), str(made)], check=True)
        return np.asarray(np.load(made), np.float32)
