"""What the tests of the GGUF exporter share: tokenizers and tiny models as folders, and llama.cpp as the judge."""

from __future__ import annotations

import argparse
import inspect
import json
import textwrap
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from threads import one_thread

# Real prose and code to train small vocabularies on: what the standard library says about itself.
CORPUS = inspect.getsource(argparse) + inspect.getsource(textwrap) + (argparse.__doc__ or "")

SPLITS = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "gpt-4o": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}

TEXTS = (
    "Hello, world!",
    "How do I reset my password?",
    " leading space",
    "trailing space ",
    "  two   three    four spaces",
    "line one\nline two\r\nline three\n\n\nafter blanks",
    "\ttab\t\ttabs\n\tindented",
    "\n",
    " ",
    "   \n  \n",
    "1234567890",
    "In 2024, 3.14159 is 22/7 ± 0.00126",
    "€1,234.56 and $99.99 (50% off)",
    "order #A-1049-77b, phone +49 (0)30 123456",
    "a1b2c3 x64 v1.2.3-rc4",
    "don't can't we'll I'M THEY'RE it's",
    "l'été à Paris, naïve café",
    "Größe, Straße, ÄÖÜ",
    "Здравствуйте, мир",
    "Καλημέρα κόσμε",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "你好，世界。今天天气很好",
    "こんにちは世界カタカナ",
    "안녕하세요 세계",
    "👍 🎉🎉 👩‍👩‍👧‍👦 🇩🇪",
    "mixed 你好 world 🌍 123",
    "camelCase PascalCase snake_case SCREAMING_CASE kebab-case",
    "def f(x: int) -> str:\n    return f'{x!r}'  # comment\n",
    "for (int i = 0; i < 10; ++i) { a[i] += b[i] * 2; }",
    '{"key": [1, 2.5, null, true], "nested": {"a": "b\\n"}}',
    "<html><body class='x'>text</body></html>",
    "https://example.com/path?q=1&r=two#frag user@example.org",
    "x² + y₃ = ½ Ⅷ ①",
    "… — “quoted” ‘single’ «guillemets»",
    "A" * 40,
    "ab " * 20,
    "/usr/local/bin///../x\\y\\z",
    "non\u00a0breaking\u2003em\u3000wide",
)


def byte_level_tokenizer(rule: str, vocabulary_size: int = 1024) -> PreTrainedTokenizerFast:
    """A small byte-level tokenizer that splits text by one of llama.cpp's rules."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule not in SPLITS)
    if rule in SPLITS:
        keep = ("removed", True) if rule == "gpt-4o" else ("isolated", False)
        first = [pre_tokenizers.Split(Regex(SPLITS[rule]), behavior=keep[0], invert=keep[1])]
    else:
        first = [pre_tokenizers.Digits(individual_digits=True)] if rule == "smollm" else []
    tokenizer = Tokenizer(models.BPE(ignore_merges=rule == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, byte_level]) if first else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False)])
    if rule == "llama-bpe":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>")


def sentencepiece_tokenizer(vocabulary_size: int = 1200) -> PreTrainedTokenizerFast:
    """A small tokenizer shaped as Phi-3 mini's: byte fallback, merges from scores, markers that swallow whitespace."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    trained.train_from_iterator(
        [CORPUS.replace("\n", " ")], trainers.BpeTrainer(vocab_size=vocabulary_size, show_progress=False)
    )
    pieces = [piece for piece, _ in sorted(trained.get_vocab().items(), key=lambda item: item[1])]
    words, characters = [p for p in pieces if len(p) > 1], [p for p in pieces if len(p) == 1]
    vocab = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))])}
    for piece in [*words, *characters]:
        vocab[piece] = len(vocab)
    halves = [(word[:cut], word[cut:]) for word in words for cut in range(1, len(word))]
    merges = [(left, right) for left, right in halves if left in vocab and right in vocab]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(
        [
            *(AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "<|endoftext|>")),
            *(AddedToken(t, normalized=False, rstrip=True) for t in ("</s>", "<|assistant|>", "<|end|>", "<|user|>")),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|endoftext|>",
        unk_token="<unk>",
        pad_token="<|endoftext|>",
        chat_template="{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}<|assistant|>\n",
    )


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class LlamaCpp:
    """A file opened by llama.cpp."""

    def __init__(self, file: Path, context: int = 256) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(file)
        parameters.n_ctx = context
        parameters.n_parallel = 1
        parameters.warmup = False
        parameters.verbosity = 0
        parameters.cpuparams.n_threads = 1
        parameters.cpuparams_batch.n_threads = 1
        self._server = xllamacpp.Server(parameters)

    def greedy(self, prompt: Sequence[int], tokens: int) -> list[dict[str, Any]]:
        """The likeliest continuation, up to the end of the text: for each token `id`, `logprob` and the five likeliest as
        `top_logprobs`. The server holds back tokens that are a part of a character."""
        reply = self._server.handle_completions({"prompt": list(prompt), "n_predict": tokens, "temperature": 0, "n_probs": 5})
        logprobs = reply["choices"][0]["logprobs"]
        return logprobs["content"] if logprobs else []

    def tokenize(self, text: str) -> list[int]:
        """What the file's tokenizer makes of a text, markers included."""
        body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
        request = urllib.request.Request(f"{self._server.listening_address}/tokenize", data=body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as response:
            tokens: list[int] = json.load(response)["tokens"]
        return tokens


@dataclass
class Distance:
    """How far llama.cpp lies from the weights, in nats: the most that a token it chose falls short of the likeliest, and
    the largest difference of a log-probability among its five likeliest."""

    shortfall: float = 0.0
    logprob: float = 0.0

    def add(self, logprobs: torch.Tensor, step: dict[str, Any]) -> None:
        self.shortfall = max(self.shortfall, float(logprobs.max() - logprobs[step["id"]]))
        for candidate in step["top_logprobs"]:
            self.logprob = max(self.logprob, abs(float(logprobs[candidate["id"]]) - candidate["logprob"]))


def compare_steps(model: PreTrainedModel, engine: LlamaCpp, prompt: Sequence[int], steps: int = 8) -> Distance:
    """Token by token along the weights' own greedy continuation; for models that write no whole characters."""
    ids = list(prompt)
    distance = Distance()
    while steps:
        logprobs = logprobs_of(model, ids)[-1]
        found = engine.greedy(ids, 1)
        if not found:  # held back: go on with a token of the prompt
            ids.append(prompt[len(ids) % len(prompt)])
            continue
        steps -= 1
        distance.add(logprobs, found[0])
        ids.append(int(logprobs.argmax()))
    return distance


def logprobs_of(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    with one_thread(), torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), dim=-1)
