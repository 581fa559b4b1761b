"""Turns texts into vectors with a small static model that comes with its package, in an environment of its own:
`embedding_worker.py TEXTS VECTORS`, a file of one text as JSON a line, and where to write the array, a row of norm 1 a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

BATCH = 1024


def main(texts: Path, vectors: Path) -> None:
    home = next(Path(folder) / "wordllama" for folder in sys.path if (Path(folder) / "wordllama" / "weights").is_dir())
    (weights,) = (home / "weights").glob("*.safetensors")
    (settings,) = (home / "tokenizers").glob("*.json")
    tokens, tokenizer = next(iter(load_file(weights).values())).astype(np.float32), Tokenizer.from_file(str(settings))
    given = [json.loads(line) for line in texts.open(encoding="utf-8")]
    means = np.stack([
        tokens[encoded.ids].mean(0) for start in range(0, len(given), BATCH)
        for encoded in tokenizer.encode_batch(given[start : start + BATCH], add_special_tokens=False)
    ])
    np.save(vectors, means / np.linalg.norm(means, axis=1, keepdims=True))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
