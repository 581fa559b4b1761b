"""Rows to batches: tokens, and which of them the student is to learn.

In: dialogues. Out: `TokenisedRow`s, then padded tensors. What is a target follows from lengths, never from token ids: where
the padding token is also the token that ends a turn, a mask made from ids would hide the end, and the student would never
learn to stop. A text that is too long is left out whole: a student trained on cut answers learns to write cut answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import torch

from potstill.rows import Row
from potstill.templates import ChatTemplate, TrainingText

IGNORED = -100  # the label of a token that is no target, as in torch and transformers
KeyOf = Callable[[Row, Sequence["TokenisedRow"]], "list[str] | None"]


@dataclass(frozen=True, slots=True)
class TokenisedRow:
    """One training text: its token ids, and for each whether the student is to predict it. weight: what each target counts.

    key: the content key under which the teacher's signals for its targets are known, where any are learnt from.
    """

    input_ids: tuple[int, ...]
    target_mask: tuple[bool, ...]
    weight: float = 1.0
    key: str = ""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def targets(self) -> tuple[int, ...]:
        """The token ids to predict."""
        return tuple(compress(self.input_ids, self.target_mask))


FILLER = TokenisedRow((0,), (False,))  # teaches nothing, and gives a process a batch when the others still have one


@dataclass(frozen=True, slots=True)
class TokenisedRows:
    """The texts to train on, the ids of the rows that have one longer than the limit, and of those without signals."""

    texts: tuple[TokenisedRow, ...]
    left_out: tuple[str, ...]
    untaught: tuple[str, ...] = ()

    @property
    def target_tokens(self) -> int:
        return sum(sum(text.target_mask) for text in self.texts)

    @property
    def tokens(self) -> int:
        return sum(len(text) for text in self.texts)


def tokenise_rows(
    rows: Sequence[Row], template: ChatTemplate, tokenizer: Any, *, all_turns: bool, max_length: int,
    key_of: KeyOf | None = None,
) -> TokenisedRows:
    """Render and tokenise rows; a row with a text of more than `max_length` tokens is left out.

    Args:
        rows: Dialogues that end with the answer to learn.
        template: The student's chat template.
        tokenizer: The student's tokenizer.
        all_turns: Learn every assistant turn, not the last one alone.
        max_length: In tokens.
        key_of: The keys of the teacher's signals for the texts of a row; a row for which there are none is left out.

    Raises:
        InputError: the template cannot render a row, or a row has no assistant turn.
    """
    texts: list[TokenisedRow] = []
    left_out: list[str] = []
    untaught: list[str] = []
    for row in rows:
        of_row = texts_of(row, template, tokenizer, all_turns=all_turns)
        keys = [""] * len(of_row) if key_of is None else key_of(row, of_row)
        if max(len(text) for text in of_row) > max_length:
            left_out.append(row.id)
        elif keys is None:
            untaught.append(row.id)
        else:
            texts.extend(replace(text, key=key) for text, key in zip(of_row, keys, strict=True))
    return TokenisedRows(tuple(texts), tuple(left_out), tuple(untaught))


def texts_of(row: Row, template: ChatTemplate, tokenizer: Any, *, all_turns: bool) -> list[TokenisedRow]:
    """The texts of a row, rendered and tokenised; errors are those of `tokenise_rows`."""
    return [tokenise(text, tokenizer) for text in template.training_texts(row.messages, last_only=not all_turns)]


def weigh_parts(answers: TokenisedRows, rationales: TokenisedRows, rationale_weight: float) -> TokenisedRows:
    """Both as one set, in which the rationales as a whole count `rationale_weight` where the answers as a whole count 1.

    A mean over all tokens would drown answers of two tokens in reasoning of eighty. With A answer and R rationale targets and
    the weight w each answer target counts (A + R) / (A (1 + w)), each rationale target w (A + R) / (R (1 + w)): the loss is
    then (mean over answers + w * mean over rationales) / (1 + w), the sum of Hsieh et al. 2023 (arXiv:2305.02301) up to scale.
    """
    ours, theirs = answers.target_tokens, rationales.target_tokens
    if not theirs:
        return answers
    of_answer = (ours + theirs) / (ours * (1 + rationale_weight))
    of_rationale = rationale_weight * (ours + theirs) / (theirs * (1 + rationale_weight))
    weighed = [replace(text, weight=of_answer) for text in answers.texts]
    weighed += [replace(text, weight=of_rationale) for text in rationales.texts]
    return TokenisedRows(
        tuple(weighed), answers.left_out + rationales.left_out, answers.untaught + rationales.untaught
    )


def tokenise(text: TrainingText, tokenizer: Any) -> TokenisedRow:
    """Token ids of a training text, cut where a target begins or ends.

    When the student generates, its prompt is tokenised on its own, and what it writes follows. So every segment is tokenised
    as the continuation of the tokens before it, and no token spans a boundary.
    """
    ids: list[int] = []
    mask: list[bool] = []
    position = 0
    for start, end in text.spans:
        for stop, is_target in ((start, False), (end, True)):
            added = _continuation(tokenizer, text.text[:position], text.text[position:stop], ids)
            ids += added
            mask += [is_target] * len(added)
            position = stop
    if mask:
        mask[0] = False  # nothing comes before the first token from which it could be predicted
    return TokenisedRow(tuple(ids), tuple(mask))


def _continuation(tokenizer: Any, before: str, segment: str, ids_before: list[int]) -> list[int]:
    """Tokens of `segment` after `ids_before`.

    Taken from the two tokenised together where that leaves the tokens before untouched: some tokenizers (Llama 2, Phi-3)
    put a space before whatever begins a text. Where tokens merge across the boundary, the segment alone.
    """
    together: list[int] = tokenizer(before + segment, add_special_tokens=False).input_ids
    if together[: len(ids_before)] == ids_before:
        return together[len(ids_before) :]
    alone: list[int] = tokenizer(segment, add_special_tokens=False).input_ids
    return alone


@dataclass(frozen=True, slots=True)
class Collator:
    """Pads rows on the right to the longest and finds the positions that predict a target.

    Returns a mapping of tensors, int64 but for the weights, B rows of L tokens with N targets among them:
        input_ids (B, L)
        labels (B, L): the token ids at targets, -100 elsewhere
        positions (N,): where in the B*L flattened positions the targets are predicted, which is one before each
        target_ids (N,): the targets, in the same order
        weights (N,), float32: what each target counts; absent where all count 1
        keys, a tuple of B texts: the keys of the rows' signals; absent where there are none

    There is no attention mask: with causal attention a token never sees the padding on its right, and the faster attention
    kernels take no mask.
    """

    pad_id: int

    def __call__(self, rows: Sequence[TokenisedRow]) -> dict[str, Any]:
        length = max(len(row) for row in rows)
        input_ids = torch.full((len(rows), length), self.pad_id)
        labels = torch.full((len(rows), length), IGNORED)
        for i, row in enumerate(rows):
            ids, mask = torch.tensor(row.input_ids), torch.tensor(row.target_mask)
            input_ids[i, : len(row)] = ids
            labels[i, : len(row)] = torch.where(mask, ids, IGNORED)
        flat = labels.flatten()
        targets = (flat != IGNORED).nonzero().squeeze(1)
        batch: dict[str, Any] = {
            "input_ids": input_ids, "labels": labels, "positions": targets - 1, "target_ids": flat[targets]
        }
        if any(row.weight != 1.0 for row in rows):
            batch["weights"] = torch.tensor([row.weight for row in rows])[targets // length]
        if keys := tuple(row.key for row in rows if row.key):  # fillers have none
            batch["keys"] = keys
        return batch
