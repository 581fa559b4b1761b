"""How close a student is to its teacher: on rows that end with the teacher's own answers, which nobody trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.rows import Row
from potstill.templates import ChatTemplate
from potstill.training.collator import Collator, tokenise_rows

BATCH = 8


def judged(teacher: Path, student: Path, rows: Sequence[Row]) -> dict[str, float]:
    """nats: the student's cross-entropy on the teacher's answers, a token. agreement: the share of places where the likeliest
    tokens of both are the same. tokens: the places compared. All in float32."""
    tokenizer, template = AutoTokenizer.from_pretrained(student), ChatTemplate.from_folder(student)
    texts = tokenise_rows(rows, template, tokenizer, all_turns=False, max_length=10**6).texts
    networks = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in (teacher, student)]
    nats, same, count = 0.0, 0, 0
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), BATCH):
        batch = Collator(pad_id=0)(ordered[start : start + BATCH])
        firsts = []
        for network in networks:
            logits = answer_logits(network, batch)
            firsts.append(logits.argmax(1))
        nats += functional.cross_entropy(logits, batch["target_ids"], reduction="sum").item()  # the student's: it is last
        same += int((firsts[0] == firsts[1]).sum())
        count += len(batch["target_ids"])
    return {"nats": nats / count, "agreement": same / count, "tokens": count}


@torch.no_grad()
def answer_logits(network: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(N, V) at the target positions."""
    states = network.get_decoder()(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
    logits: torch.Tensor = network.get_output_embeddings()(states.flatten(0, 1)[batch["positions"]])
    return logits
