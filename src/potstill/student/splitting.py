"""How byte-level tokenizers cut text before their merges apply, by the names llama.cpp gives the rules.

A GGUF file holds no rule, only the name of one that is compiled into llama.cpp (src/llama-vocab.cpp). Transformers knows some
of the names and takes GPT-2's rule for all others, without a word: a student opened so would read "\\n\\n1." in other tokens
than those it was trained on. So the rules stand here, once, for opening a file and for writing one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import InputError
from potstill.gguf_metadata import read_metadata

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_REST_WITH_SLASHES = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
_WORD = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_CASED_WORDS = rf"{_LEAD}[{_UPPER}]*[{_LOWER}]+{_CONTRACTION}?|{_LEAD}[{_UPPER}]+[{_LOWER}]*{_CONTRACTION}?"


@dataclass(frozen=True, slots=True)
class SplittingRule:
    """pattern: every match is a piece; None is GPT-2's own pattern. single_digits: each digit is a piece before that.
    whole_words_first: a piece that is a token is taken before any merge (`ignore_merges` in tokenizer.json)."""

    pattern: str | None
    single_digits: bool = False
    whole_words_first: bool = False


SPLITTING_RULES: Mapping[str, SplittingRule] = {
    "gpt-2": SplittingRule(None),
    "smollm": SplittingRule(None, single_digits=True),
    "llama-bpe": SplittingRule(rf"{_WORD}|\p{{N}}{{1,3}}|{_REST}", whole_words_first=True),
    "smaug-bpe": SplittingRule(rf"{_WORD}|\p{{N}}{{1,3}}|{_REST}"),
    "qwen2": SplittingRule(rf"{_WORD}|\p{{N}}|{_REST}"),
    "gpt-4o": SplittingRule(rf"{_CASED_WORDS}|\p{{N}}{{1,3}}|{_REST_WITH_SLASHES}"),
}


def splitting_rule(path: Path) -> SplittingRule | None:
    """The rule of a GGUF file; None for a sentencepiece-like vocabulary, before which text is not split.

    Raises:
        InputError: the file names a rule that is not known here, or is damaged.
    """
    settings = read_metadata(path, {"tokenizer.ggml.model", "tokenizer.ggml.pre"})
    if settings.get("tokenizer.ggml.model") != "gpt2":
        return None
    name = str(settings.get("tokenizer.ggml.pre"))
    if name not in SPLITTING_RULES:
        raise InputError(
            "the student's file splits text by a rule that is not known here", where=f"{path}: tokenizer.ggml.pre",
            found=name, expected=", ".join(SPLITTING_RULES), hint="name the model's folder or hub id instead of the file",
        )
    return SPLITTING_RULES[name]


def apply_rule(tokenizer: Any, rule: SplittingRule) -> None:
    """Make a tokenizer of the tokenizers library with a byte-level BPE model split text by a rule, in place.

    What belongs to sentencepiece-like vocabularies is taken off: transformers 5.17 puts it on those of every GGUF file.
    """
    from tokenizers import Regex, decoders, pre_tokenizers

    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if rule.single_digits else []
    if rule.pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(rule.pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule.pattern is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.model.ignore_merges = rule.whole_words_first
    tokenizer.model.byte_fallback = tokenizer.model.fuse_unk = False
    tokenizer.model.unk_token = None
    tokenizer.normalizer, tokenizer.decoder = None, decoders.ByteLevel()
