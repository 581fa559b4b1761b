"""Keep transformers from reading a GGUF file again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any


@contextmanager
def gguf_read_once() -> Iterator[None]:
    """Loading a GGUF file inside parses it once and shows no progress bar.

    transformers 5 opens the file up to three times (tokenizer, configuration, weights) and builds the table of tensor names
    anew for every module. Both are pure functions of the file, so they are remembered. The reader slices its memory map some
    250,000 times for 49,152 tokens: 3.2 s of CPU for numpy's memmap, 0.8 s for a plain array over the same memory.
    """
    import gguf
    import numpy as np
    from transformers import modeling_gguf_pytorch_utils as loader

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, mapped: Any) -> None:
            self._plain = np.asarray(mapped)

    with ExitStack() as replaced:
        replaced.enter_context(_replaced(gguf, "GGUFReader", lru_cache(maxsize=1)(Reader)))
        replaced.enter_context(_replaced(gguf, "get_tensor_name_map", lru_cache(maxsize=1)(gguf.get_tensor_name_map)))
        replaced.enter_context(_replaced(loader, "tqdm", _no_bar))
        yield


def _no_bar(values: Iterable[Any], **_options: Any) -> Iterable[Any]:
    return values


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
