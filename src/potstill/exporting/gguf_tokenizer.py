"""The tokenizer of a model folder, in the form a GGUF file holds it.

Two kinds are written: byte-level BPE (GPT-2's scheme: SmolLM2, Llama 3, Qwen, Phi-4), with its merges, and
sentencepiece-like BPE with byte fallback (Llama 2, Phi-3), with scores in place of merges. Everything comes from
`tokenizer.json`; `tokenizer_config.json` and `generation_config.json` add which tokens begin and end a text.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from potstill.errors import ExportError
from potstill.exporting.gguf_pretokenizer import Json, byte_level_rule, prefixes_space

_log = logging.getLogger(__name__)

# Named "phi-3", a file makes llama.cpp drop the space after every special token but three, and it needs these to be
# there.
_PHI3_NAME = re.compile(r"phi-?3", re.IGNORECASE)
_PHI3_TOKENS = frozenset({"</s>", "<unk>", "<s>", "<|endoftext|>"})
_PHI3_KEEPS_SPACE = frozenset({"<unk>", "<s>", "<|endoftext|>"})


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, with what llama.cpp needs to cut text into them.

    Args:
        model: llama.cpp's tokenizer, `gpt2` or `llama`.
        splitting_rule: The name of its splitting rule.
        tokens: One text an id, as many as the embedding has rows.
        types: One `gguf.TokenType` an id.
        merges: `left right`, best first; of a byte-level tokenizer.
        scores: One an id, the higher the earlier it is merged; of a sentencepiece-like tokenizer.
        special: Ids by role: bos, eos, eot (ends a turn), eom (another stop), unk, pad.
        flags: add_bos_token, add_eos_token, add_space_prefix.
        strips_right: Special tokens that swallow the whitespace after them.
        chat_template: Jinja, or None.
    """

    model: str
    splitting_rule: str
    tokens: Sequence[str]
    types: Sequence[gguf.TokenType]
    merges: Sequence[str] | None
    scores: Sequence[float] | None
    special: Mapping[str, int]
    flags: Mapping[str, bool]
    strips_right: frozenset[str]
    chat_template: str | None

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Write all of it as metadata of the file."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.splitting_rule)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        for role, token_id in self.special.items():
            getattr(writer, f"add_{role}_token_id")(token_id)
        writer.add_add_bos_token(self.flags["add_bos_token"])
        writer.add_add_eos_token(self.flags["add_eos_token"])
        writer.add_add_space_prefix(self.flags["add_space_prefix"])
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)

    def display_name(self, name: str) -> str:
        """The model's name as the file may say it.

        llama.cpp takes "phi-3" in the name, and nothing else, as the sign that special tokens swallow the whitespace
        after them; such a file does not load without Phi-3's own special tokens. So the words are added or broken to
        fit.
        """
        swallows = bool(self.strips_right) and set(self.tokens) >= _PHI3_TOKENS
        if swallows:
            return name if _PHI3_NAME.search(name) else f"{name} (Phi-3)"
        if self.strips_right:
            _log.warning("llama.cpp keeps the whitespace after %s, the tokenizer drops it", min(self.strips_right))
        return _PHI3_NAME.sub("Phi 3", name)


def read_vocabulary(model_dir: Path, config: Json, rows: int, chat_template: str | None) -> Vocabulary:
    """The vocabulary of a model folder.

    Args:
        model_dir: The folder, with `tokenizer.json`.
        config: The model's configuration.
        rows: How many rows the embedding has; ids without a token are filled with unused ones.
        chat_template: The template to store; by default the folder's own.

    Raises:
        ExportError: The folder has no tokenizer, or one that llama.cpp would not compute alike.
    """
    tokenizer = _read_json(model_dir / "tokenizer.json")
    if tokenizer is None:
        raise ExportError("the folder has no tokenizer", where=str(model_dir), expected="tokenizer.json")
    settings = _read_json(model_dir / "tokenizer_config.json") or {}
    if tokenizer["model"].get("type") != "BPE":
        raise ExportError(
            "this kind of tokenizer cannot be exported to GGUF",
            where="tokenizer.json: model.type",
            found=tokenizer["model"].get("type"),
            expected="BPE",
        )
    if chat_template is None:
        chat_template = _own_chat_template(model_dir, settings)
    ids = {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}
    tokens, types = _tokens_and_types(tokenizer, ids, rows)
    pairs = [tuple(m.split(" ") if isinstance(m, str) else m) for m in tokenizer["model"]["merges"]]
    flags = _begin_and_end(tokenizer, settings)
    merges = scores = None
    if tokenizer["model"].get("byte_fallback"):
        model, rule = "llama", "default"
        flags["add_space_prefix"] = prefixes_space(tokenizer, chat_template is not None)
        scores = _scores(pairs, tokens, types)
    else:
        model, rule = "gpt2", byte_level_rule(tokenizer)
        flags["add_space_prefix"] = False
        merges = [f"{left} {right}" for left, right in pairs]
    generation = _read_json(model_dir / "generation_config.json") or {}
    special = _special_ids(ids, settings, config, generation, chat_template or "")
    if chat_template is not None and not _begins_texts(chat_template, tokens[special["bos"]] if "bos" in special else None):
        flags["add_bos_token"] = False  # the student has met only what the template writes
    return Vocabulary(
        model=model,
        splitting_rule=rule,
        tokens=tokens,
        types=types,
        merges=merges,
        scores=scores,
        special=special,
        flags=flags,
        strips_right=frozenset(token["content"] for token in tokenizer["added_tokens"] if token.get("rstrip")),
        chat_template=chat_template,
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError("a file of the tokenizer is not JSON", where=str(path), found=error) from error
    return content


def _own_chat_template(model_dir: Path, settings: Json) -> str | None:
    file = model_dir / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several by name
        return next((entry["template"] for entry in template if entry["name"] == "default"), None)
    return template


def _tokens_and_types(tokenizer: Json, ids: Mapping[str, int], rows: int) -> tuple[list[str], list[gguf.TokenType]]:
    highest = max(ids.values())
    if highest >= rows:
        raise ExportError(
            "the tokenizer has more tokens than the model has embeddings",
            where="tokenizer.json",
            found=f"a token with id {highest}",
            expected=f"ids below {rows}",
        )
    byte_fallback = tokenizer["model"].get("byte_fallback")
    unknown = tokenizer["model"].get("unk_token")
    added = {token["content"]: token["special"] for token in tokenizer["added_tokens"]}
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [gguf.TokenType.UNUSED] * rows
    for token, token_id in ids.items():
        tokens[token_id] = token
        if token == unknown and byte_fallback:
            types[token_id] = gguf.TokenType.UNKNOWN
        elif token in added:
            types[token_id] = gguf.TokenType.CONTROL if added[token] else gguf.TokenType.USER_DEFINED
        elif byte_fallback and re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            types[token_id] = gguf.TokenType.BYTE
        else:
            types[token_id] = gguf.TokenType.NORMAL
    return tokens, types


def _scores(pairs: Iterable[tuple[str, ...]], tokens: Sequence[str], types: Sequence[gguf.TokenType]) -> list[float]:
    """Scores under which llama.cpp merges as the list of merges says.

    llama.cpp joins any two neighbours whose union is a token, highest score first. That is the same as the list of
    merges when the list was itself made from scores: every way to split a token into two tokens is in it, and all
    ways to make one token stand together. Both are checked.
    """
    rank: dict[str, int] = {}
    listed: set[tuple[str, ...]] = set()
    last = None
    for pair in pairs:
        made = "".join(pair)
        if made != last and made in rank:
            raise _not_from_scores(f"the merges into {made!r} do not stand together")
        rank.setdefault(made, len(rank))
        listed.add(pair)
        last = made
    pieces = {token for token, kind in zip(tokens, types, strict=True) if kind is gguf.TokenType.NORMAL}
    for token in pieces:
        for cut in range(1, len(token)):
            pair = token[:cut], token[cut:]
            if pair not in listed and all(half in pieces or len(half) == 1 for half in pair):
                raise _not_from_scores(f"{pair[0]!r} and {pair[1]!r} are not merged into {token!r}")
    if sum(kind is gguf.TokenType.BYTE for kind in types) != 256:
        raise _not_from_scores("not all 256 bytes have a token")
    return [-float(rank.get(token, len(rank))) for token in tokens]


def _not_from_scores(found: str) -> ExportError:
    return ExportError(
        "llama.cpp would cut text otherwise than this tokenizer does",
        where="tokenizer.json: model.merges",
        found=found,
        expected="the merges that transformers makes of a sentencepiece vocabulary",
    )


def _begin_and_end(tokenizer: Json, settings: Json) -> dict[str, bool]:
    """Whether the tokenizer puts bos before and eos after a text: by its own setting, else by its post-processor."""
    processor = tokenizer.get("post_processor") or {}
    template: list[Any] = []
    for step in processor.get("processors", [processor]):
        if step.get("type") == "TemplateProcessing":
            template = step["single"]
    flags = {
        "add_bos_token": bool(template) and "SpecialToken" in template[0],
        "add_eos_token": bool(template) and "SpecialToken" in template[-1],
    }
    return {key: settings[key] if isinstance(settings.get(key), bool) else value for key, value in flags.items()}


def _begins_texts(chat_template: str, bos: str | None) -> bool:
    return "bos_token" in chat_template or (bos is not None and bos in chat_template)


def _special_ids(ids: Mapping[str, int], settings: Json, config: Json, generation: Json, chat_template: str) -> dict[str, int]:
    texts = {token_id: text for text, token_id in ids.items()}
    special: dict[str, int] = {}
    for role in ("bos", "eos", "unk", "pad"):
        stated = settings.get(f"{role}_token")
        text = stated.get("content") if isinstance(stated, dict) else stated
        token_id = ids.get(text) if text is not None else config.get(f"{role}_token_id")
        if token_id in texts:
            special[role] = token_id
    stops = [special["eos"]] if "eos" in special else []
    for source in (generation, config):
        stated = source.get("eos_token_id")
        stops += [stop for stop in (stated if isinstance(stated, list) else [stated]) if stop in texts]
    stops = list(dict.fromkeys(stops))
    if not stops:
        raise ExportError(
            "the model has no token that ends a text",
            where="tokenizer_config.json: eos_token",
            expected="an eos_token there, or eos_token_id in generation_config.json or config.json",
        )
    special["eos"] = stops[0]
    ends_turn = next((stop for stop in stops if texts[stop] in chat_template), None)
    if ends_turn is not None:
        special["eot"] = ends_turn
    others = [stop for stop in stops[1:] if stop != ends_turn]
    if others:
        special["eom"] = others[-1]
    return special
