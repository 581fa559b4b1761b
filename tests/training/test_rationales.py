"""What a student is trained on of a teacher's reasoning, as the exact strings that training reads.

A loopback teacher gives the worked solutions of GSM8K rows; they are generated, curated, rendered and tokenised as in a job.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from loopback import serve_in_thread
from potstill.catalog import resolve
from potstill.curation import curate
from potstill.pipeline.asking import answers_in_order
from potstill.rows import Message, Row, read_jsonl
from potstill.spec import CurationSpec, GenerationSpec, ModelSpec
from potstill.tasks import Task, get_task
from potstill.templates import ChatTemplate
from potstill.training.collator import Collator, TokenisedRow, tokenise_rows, weigh_parts
from potstill.training.losses.fused import dense_loss
from potstill.training.losses.mix import Mix
from potstill.training.rationales import answer_rows, rationale_rows

ROWS = 6
MATH = get_task("math")
NLI = get_task("nli")
SYSTEM = "Solve the problem step by step. End with a line that has #### and then the final number."


@pytest.fixture(scope="module")
def gsm8k(data_dir: Path) -> list[dict[str, Any]]:
    return list(islice(read_jsonl(data_dir / "math" / "gsm8k.train.jsonl"), ROWS))


@pytest.fixture(scope="module")
def worked(gsm8k: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows as curation keeps them, the teacher being asked to reason."""
    solutions = {record["question"]: record["answer"] for record in gsm8k}
    rows = [MATH.row(record) for record in gsm8k]
    with serve_in_thread(lambda messages: solutions[messages[-1]["content"]]) as server:
        teacher = resolve(ModelSpec(model="loopback", endpoint=server.base_url))
        generation = GenerationSpec(chain_of_thought=True)
        journal = tmp_path_factory.mktemp("journal")
        outcomes = answers_in_order(teacher, MATH, rows, generation, journal, lambda done, total: None)
    answered = [row for outcome in outcomes if isinstance(outcome, tuple) for row in outcome]
    kept = curate(answered, split="train", spec=CurationSpec(), task=MATH, held_out=[]).kept
    assert len(kept) == ROWS
    return kept


def trained_on(
    rows: list[Row], rationale: Literal["discard", "train", "multitask"], task: Task, template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
) -> list[tuple[str, str]]:
    """For each training text what stands before the target and the target, both decoded from the tokens."""
    found = []
    for part in (answer_rows(rows, rationale, task), rationale_rows(rows, rationale, task)):
        for text in tokenise_rows(part, template, tokenizer, all_turns=False, max_length=2_000).texts:
            found.append((decoded(text, False, tokenizer), decoded(text, True, tokenizer)))
    return found


def decoded(text: TokenisedRow, target: bool, tokenizer: PreTrainedTokenizerBase) -> str:
    pairs = zip(text.input_ids, text.target_mask, strict=True)
    return tokenizer.decode([token for token, is_target in pairs if is_target == target])


def parts(record: dict[str, Any]) -> tuple[str, str]:
    steps, _, number = record["answer"].partition("\n#### ")
    return steps, number


def prompts(record: dict[str, Any]) -> tuple[str, str]:
    """As the student's template writes them: for the answer, and for the reasoning."""
    asked = f"<|im_start|>user\n{record['question']}<|im_end|>\n<|im_start|>assistant\n"
    wish = "\n\nInstead of the answer, write the reasoning that leads to it."
    return f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{asked}", f"<|im_start|>system\n{SYSTEM}{wish}<|im_end|>\n{asked}"


def test_discard_train_and_multitask_train_on_different_strings(
    worked: list[Row], gsm8k: list[dict[str, Any]], template: ChatTemplate, tokenizer: PreTrainedTokenizerBase
) -> None:
    discard, train, multitask = (
        trained_on(worked, rationale, MATH, template, tokenizer) for rationale in ("discard", "train", "multitask")
    )
    assert discard == [(prompts(record)[0], f"#### {parts(record)[1]}<|im_end|>") for record in gsm8k]
    assert train == [
        (prompts(record)[0], f"{parts(record)[0]}\n#### {parts(record)[1]}<|im_end|>") for record in gsm8k
    ]
    assert multitask == discard + [(prompts(record)[1], f"{parts(record)[0]}<|im_end|>") for record in gsm8k]


def test_a_student_that_learnt_to_reason_is_read_like_its_teacher(worked: list[Row]) -> None:
    for row in answer_rows(worked, "train", MATH):
        assert MATH.verify(row.messages[-1].content, row) is True


def test_a_label_is_found_after_reasoning_that_names_them_all(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase
) -> None:
    row = NLI.row({"premise": "A dog runs.", "hypothesis": "A cat runs.", "label": "neutral"})
    reasoning = "Entailment? No. A contradiction would need the dog to be the only animal."
    answered = Row(row.id, (*row.messages, Message("assistant", "neutral")), row.reference, {"rationale": reasoning})
    ((_, target),) = trained_on([answered], "train", NLI, template, tokenizer)
    assert target == f"{reasoning}\nAnswer: neutral<|im_end|>"
    assert NLI.parse(target.removesuffix("<|im_end|>"), row).value == "neutral"
    assert NLI.parse(reasoning, row).value != "neutral"
    assert trained_on([answered], "discard", NLI, template, tokenizer)[0][1] == "neutral<|im_end|>"


def test_a_row_without_a_system_message_gets_none(template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> None:
    """Some templates refuse one."""
    row = NLI.row({"prompt": "Does it follow?"})
    answered = Row(row.id, (*row.messages, Message("assistant", "neutral")), None, {"rationale": "It might."})
    (asked,) = rationale_rows([answered], "multitask", NLI)
    assert asked.id == f"{row.id}#rationale"
    assert [message.role for message in asked.messages] == ["user", "assistant"]
    assert asked.messages[0].content == "Does it follow?\n\nInstead of the answer, write the reasoning that leads to it."


def test_answers_and_reasoning_weigh_as_much_whatever_their_lengths(
    worked: list[Row], template: ChatTemplate, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The loss over all texts is (mean over answer tokens + w * mean over reasoning tokens) / (1 + w)."""
    weight = 0.5
    answers, reasoning = (
        tokenise_rows(rows, template, tokenizer, all_turns=False, max_length=2_000)
        for rows in (answer_rows(worked, "multitask", MATH), rationale_rows(worked, "multitask", MATH))
    )
    both = weigh_parts(answers, reasoning, weight)
    batch = Collator(pad_id=0)(both.texts)
    torch.manual_seed(0)
    logits = torch.randn(len(batch["target_ids"]), 50_000)
    loss = dense_loss(
        logits, batch["target_ids"], batch["weights"], None, Mix({"ce": 1.0}), both.target_tokens, logits.shape[1]
    ).loss
    of_answers = answers.target_tokens
    means = [
        torch.nn.functional.cross_entropy(logits[place], batch["target_ids"][place])
        for place in (slice(None, of_answers), slice(of_answers, None))
    ]
    assert loss.item() == pytest.approx(((means[0] + weight * means[1]) / (1 + weight)).item(), rel=1e-5)
    assert reasoning.target_tokens > 5 * of_answers  # unweighted, the answers would be a small part of it


def test_plain_rows_have_no_weights(worked: list[Row], template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> None:
    answers = tokenise_rows(answer_rows(worked, "discard", MATH), template, tokenizer, all_turns=False, max_length=2_000)
    none = tokenise_rows([], template, tokenizer, all_turns=False, max_length=2_000)
    assert weigh_parts(answers, none, 1.0) == answers
    assert "weights" not in Collator(pad_id=0)(answers.texts)
