"""What the student is trained on is what it meets when it is served, and it learns the answers to their end, nothing else."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from potstill.rows import Message, Row
from potstill.templates import ChatTemplate
from potstill.training.collator import Collator, tokenise, tokenise_rows

ANSWERS = ["It is 4.", " with a space before", "\n\nlines\n\n", "1,234.50 €", "ünï 发票 🧾", "", "def f():\n    return 1"]


def row(*turns: str, id: str = "r") -> Row:
    return Row(id, tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(turns)))


@pytest.mark.parametrize("answer", ANSWERS)
def test_prompt_tokens_are_those_of_generation(answer: str, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> None:
    dialogue = row("What is 2+2?", answer)
    (text,) = tokenise_rows([dialogue], template, tokenizer, all_turns=False, max_length=256).texts
    prompt = tokenizer(template.render(dialogue.messages[:1], add_generation_prompt=True), add_special_tokens=False).input_ids
    assert list(text.input_ids[: len(prompt)]) == prompt
    assert not any(text.target_mask[: len(prompt)])
    assert all(text.target_mask[len(prompt) :])
    assert tokenizer.decode(text.input_ids[len(prompt) :]) == answer + "<|im_end|>"


def test_the_stop_token_is_learnt_although_it_is_the_padding_token(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate
) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    rows = [row("a", "b"), row("a much longer question, so that the other row is padded", "b")]
    texts = tokenise_rows(rows, template, tokenizer, all_turns=False, max_length=256).texts
    batch = Collator(pad_id=tokenizer.pad_token_id)(texts)
    assert batch["target_ids"].tolist().count(tokenizer.eos_token_id) == 2
    assert (batch["labels"] != -100).sum() == sum(sum(text.target_mask) for text in texts)


def test_positions_are_one_before_their_targets(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> None:
    rows = [row("x" * n, "some answer", "and then?", "more", id=str(n)) for n in range(1, 6)]
    texts = tokenise_rows(rows, template, tokenizer, all_turns=True, max_length=256).texts
    batch = Collator(pad_id=0)(texts)
    assert torch.equal(batch["input_ids"].flatten()[batch["positions"] + 1], batch["target_ids"])
    expected = [token for text in texts for token, target in zip(text.input_ids, text.target_mask, strict=True) if target]
    assert batch["target_ids"].tolist() == expected


def test_all_turns_or_the_last_alone(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> None:
    dialogue = row("hi", "first answer", "and?", "second answer")

    def learnt(all_turns: bool) -> str:
        (text,) = tokenise_rows([dialogue], template, tokenizer, all_turns=all_turns, max_length=256).texts
        return tokenizer.decode([token for token, is_target in zip(text.input_ids, text.target_mask, strict=True) if is_target])

    assert learnt(True) == "first answer<|im_end|>second answer<|im_end|>"
    assert learnt(False) == "second answer<|im_end|>"


def test_a_long_row_is_left_out_whole_and_named(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> None:
    short = row("hi", "hello", id="short")
    (text,) = template.training_texts(short.messages, last_only=True)
    length = len(tokenise(text, tokenizer))
    rows = [short, row("hi", "hello " * 50, id="long")]
    assert tokenise_rows(rows, template, tokenizer, all_turns=True, max_length=length).left_out == ("long",)
    assert tokenise_rows(rows, template, tokenizer, all_turns=True, max_length=length - 1).left_out == ("short", "long")


def test_tokens_that_would_merge_across_a_boundary_stay_apart(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate
) -> None:
    dialogue = row("hi", "\n\nhello")  # the prompt ends with a line break, and SmolLM2 has tokens of several
    (text,) = template.training_texts(dialogue.messages, last_only=True)
    start = text.spans[0][0]
    together = tokenizer(text.text, add_special_tokens=False).input_ids
    prompt = tokenizer(text.text[:start], add_special_tokens=False).input_ids
    assert together[: len(prompt)] != prompt
    assert list(tokenise(text, tokenizer).input_ids[: len(prompt)]) == prompt
