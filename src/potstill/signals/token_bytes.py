"""What bytes each token of a tokenizer stands for, and which token stands for given bytes.

Endpoints name tokens by their bytes. Two kinds of vocabulary can be read: byte-level BPE, which writes each byte as a printable
character (Radford et al. 2019, GPT-2: SmolLM2, Llama 3, Qwen, Phi-4), and sentencepiece's, which writes a space as "▁" and
lone bytes as <0x0A> (Kudo and Richardson 2018, arXiv:1808.06226: Llama 2, Mistral, Phi-3, Gemma).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from potstill.errors import InputError

_SPACE = "\u2581"
_LONE_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenBytes:
    """The tokens of a tokenizer by id and by bytes.

    Args:
        tokenizer: One of transformers, with a `backend_tokenizer`.

    Raises:
        InputError: the tokenizer is of another kind.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        read = None if backend is None else _reader(json.loads(backend.to_str()))
        if read is None:
            raise InputError(
                "the bytes of this tokenizer's tokens cannot be told, so log-probabilities by text cannot be used",
                where=str(getattr(tokenizer, "name_or_path", "the student")), found=type(tokenizer).__name__,
                expected="byte-level BPE, or a vocabulary of sentencepiece's",
            )
        added = {token_id: token.content.encode() for token_id, token in backend.get_added_tokens_decoder().items()}
        known = {token_id: read(token) for token, token_id in backend.get_vocab(with_added_tokens=False).items()} | added
        self._bytes: list[bytes | None] = [known.get(token_id) for token_id in range(max(known, default=-1) + 1)]
        self._added, self._ids = frozenset(added), dict[bytes, int]()
        # Of two tokens for the same bytes a piece of text goes before one that only stands in for a lone byte.
        lone = {token_id for token, token_id in backend.get_vocab().items() if _LONE_BYTE.fullmatch(token)}
        for token_id in sorted(known, key=lambda token_id: (token_id in lone, token_id in added, token_id)):
            data = known[token_id]
            if data:
                self._ids.setdefault(data, token_id)

    def of(self, token_id: int) -> bytes | None:
        """The bytes of a token; None where there is no such token, or it stands for none."""
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else None

    def is_added(self, token_id: int) -> bool:
        """Whether it is no piece of text but one of the tokens that mark something, such as the end of a turn."""
        return token_id in self._added

    def id_of(self, data: bytes) -> int | None:
        """The token that stands for these bytes; None where it takes several, or none."""
        return self._ids.get(data)


def _reader(description: dict[str, Any]) -> Callable[[str], bytes | None] | None:
    """How a tokenizer's tokens are written, by the way it puts them together again."""
    kinds = set(_types(description.get("decoder")))
    if "ByteLevel" in kinds:
        bytes_of = _byte_level()
        return lambda token: _spell(token, bytes_of)
    if kinds & {"Metaspace", "ByteFallback"}:
        return _piece
    return None


def _types(step: Any) -> Iterator[str]:
    """The names of a step of a tokenizer, and of all steps in it."""
    if isinstance(step, dict):
        yield str(step.get("type"))
        for inner in step.get("decoders", ()):
            yield from _types(inner)


def _byte_level() -> dict[str, int]:
    """The byte that each character stands for: printable ones for themselves, the others by the characters from U+0100 on."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _spell(token: str, bytes_of: dict[str, int]) -> bytes | None:
    spelt = [bytes_of.get(character) for character in token]
    return None if None in spelt else bytes(byte for byte in spelt if byte is not None)


def _piece(token: str) -> bytes:
    lone = _LONE_BYTE.fullmatch(token)
    return bytes([int(lone[1], 16)]) if lone else token.replace(_SPACE, " ").encode()
