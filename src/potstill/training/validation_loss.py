"""The loss of a model on rows before any training: what the epochs of a training are compared with.

In: a model's folder, and dialogues that end with an answer. Out: one number. What it costs: the weights in float32, and one
pass over each text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from potstill.quiet import quiet_transformers
from potstill.rows import Row
from potstill.templates import ChatTemplate
from potstill.training.collator import Collator, tokenise_rows
from potstill.training.objective import on_answers


def validation_loss(
    folder: Path, rows: Sequence[Row], *, all_turns: bool, batch_size: int,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> float | None:
    """The loss in nats a target token, every token counted alike and in float32, as a training measures it after an epoch.

    Args:
        folder: A model in the hub's layout.
        rows: Dialogues that end with the answer; those longer than the model's window are left out, as in training.
        all_turns: Count every assistant turn of a dialogue, not the last one alone.
        batch_size: Texts a pass.
        on_done: Called with the number of texts done and of all.

    Returns None where no row is short enough.

    Raises:
        InputError: the template cannot render a row.
    """
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        window = getattr(AutoConfig.from_pretrained(folder), "max_position_embeddings", None)
        template = ChatTemplate.from_folder(folder)
        tokenised = tokenise_rows(rows, template, tokenizer, all_turns=all_turns, max_length=window or 10**9)
        network = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", use_safetensors=True).eval()
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    texts, collate = sorted(tokenised.texts, key=len), Collator(pad_id=0)  # padding is neither seen nor counted
    objective, total, count = on_answers(network), 0.0, 0
    with torch.no_grad():
        for start in range(0, len(texts), batch_size):
            batch = {name: part.to(network.device) for name, part in collate(texts[start : start + batch_size]).items()}
            total += objective.on_validation(network, network, batch, 0.0).loss.item()
            count += batch["target_ids"].numel()
            on_done(min(start + batch_size, len(texts)), len(texts))
    return total / count if count else None
