"""How a `tokenizer.json` cuts text before its merges apply, in the terms llama.cpp knows.

llama.cpp has no general splitter: a file names one of the rules compiled into it. The name is found from the rule
itself, never from the model's name, and a rule llama.cpp does not have is an error: the model would read other tokens
than those it was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from potstill.errors import ExportError
from potstill.student.splitting import SPLITTING_RULES, SplittingRule

Json = Mapping[str, Any]

SPACE = "\u2581"  # what sentencepiece-like vocabularies write for a space


def byte_level_rule(tokenizer: Json) -> str:
    """llama.cpp's name for the splitting rule of a byte-level tokenizer.

    Raises:
        ExportError: llama.cpp has no such rule; the rule found is quoted.
    """
    _check_normalizer(tokenizer.get("normalizer"))
    rule = _rule(_steps(tokenizer.get("pre_tokenizer")), bool(tokenizer["model"].get("ignore_merges")))
    for name, known in SPLITTING_RULES.items():
        if rule == known:
            return name
    raise ExportError(
        "llama.cpp has no rule that splits text as this tokenizer does",
        where="tokenizer.json: pre_tokenizer" + (" (with model.ignore_merges)" if rule and rule.whole_words_first else ""),
        found=json.dumps(tokenizer.get("pre_tokenizer"), ensure_ascii=False),
        expected="the rule of GPT-2, SmolLM, Llama 3, Qwen 2 or GPT-4o",
    )


def _rule(steps: Sequence[Json], whole_words_first: bool) -> SplittingRule | None:
    """The rule that a tokenizer's steps come to; None where they are of another kind."""
    kinds = [step["type"] for step in steps]
    if not kinds or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    own_pattern = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and own_pattern:
        return SplittingRule(None, False, whole_words_first)
    if kinds == ["Digits", "ByteLevel"] and own_pattern and steps[0].get("individual_digits"):
        return SplittingRule(None, True, whole_words_first)
    if kinds == ["Split", "ByteLevel"] and not own_pattern and _keeps_matches(steps[0]):
        return SplittingRule(steps[0]["pattern"].get("Regex", ""), False, whole_words_first)
    return None


def prefixes_space(tokenizer: Json, has_chat_template: bool) -> bool:
    """Whether a sentencepiece-like tokenizer puts a space before text, as llama.cpp does: at the start of the prompt
    and after every special token.

    A tokenizer that does so at the start of the prompt only (Metaspace, `first`) has no equal in llama.cpp. A
    rendered chat starts with a special token, so with a chat template no space is exact; without one, a space is.

    Raises:
        ExportError: The tokenizer changes or splits text in another way.
    """
    normalizers = _steps(tokenizer.get("normalizer"), "normalizers")
    splitters = _steps(tokenizer.get("pre_tokenizer"))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    if not splitters and normalizers in ([prepend, replace], [replace]):
        return len(normalizers) == 2
    if not normalizers and len(splitters) == 1 and splitters[0]["type"] == "Metaspace":
        scheme = splitters[0].get("prepend_scheme")
        if splitters[0].get("replacement") == SPACE and splitters[0].get("split") is False and scheme is not None:
            return bool(scheme == "always" or (scheme == "first" and not has_chat_template))
    raise ExportError(
        "llama.cpp has no rule that prepares text as this tokenizer does",
        where="tokenizer.json: normalizer, pre_tokenizer",
        found=json.dumps([tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")], ensure_ascii=False),
        expected=f"spaces become {SPACE}, with or without one put before the text, and nothing else",
    )


def _steps(part: Json | None, key: str = "pretokenizers") -> Sequence[Json]:
    if part is None:
        return []
    return list(part[key]) if part["type"] == "Sequence" else [part]


def _keeps_matches(split: Json) -> bool:
    """Whether every match becomes a piece. The patterns match all text: nothing lies between to be dropped."""
    return (split.get("behavior"), bool(split.get("invert"))) in {("Isolated", False), ("Removed", True)}


def _check_normalizer(normalizer: Json | None) -> None:
    """NFC is let through although llama.cpp does not compose characters: text in the wild is composed already."""
    kinds = [step["type"] for step in _steps(normalizer, "normalizers")]
    if any(kind != "NFC" for kind in kinds):
        raise ExportError(
            "llama.cpp does not normalise text as this tokenizer does",
            where="tokenizer.json: normalizer",
            found=json.dumps(normalizer, ensure_ascii=False),
            expected="none, or NFC",
        )
