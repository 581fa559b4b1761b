"""Verify an exported file by use: it answers greedily, and the weights judge each token it chose.

In: the file and the weights as engines, and prompts. Out: how many tokens were compared, where the two part, and what the
file's choices cost under the weights. Rounding makes near-ties fall the other way; a wrong tensor, rotary setting or tokenizer
makes the file's choices cost whole nats.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from potstill.inference.protocol import Engine, Reply, Request, Sampling, ScoringEngine
from potstill.rows import Message
from potstill.templates import ChatTemplate


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the weights think of the file's greedy choices, the end of a turn among them.

    tokens: how many were compared. partings: how many were not the weights' own first choice at that place, after the same
    tokens. worst_gap_nats: the most that one choice lost against the weights' first choice; loss_nats: the mean over all tokens
    (natural logarithms).
    """

    tokens: int
    partings: int
    worst_gap_nats: float
    loss_nats: float


async def verify_export(
    export: Engine, weights: ScoringEngine, template: ChatTemplate, prompts: Sequence[Sequence[Message]], *, max_tokens: int
) -> Comparison:
    """Compare an exported file with the weights it was made from.

    Args:
        prompts: Dialogues that end with a user turn.
        max_tokens: The length of each greedy answer.

    Raises:
        TransportError: the file's engine failed.
        MalformedReplyError: it gave an error instead of an answer, as for a prompt longer than its context.
    """
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
    requests = [Request(tuple(prompt), sampling, token_ids=True) for prompt in prompts]
    raws = await asyncio.gather(*map(export.generate, requests))
    written = [_written(export.parse(raw), template) for raw in raws]
    texts = [template.render(prompt, add_generation_prompt=True) for prompt in prompts]
    told = [(text, answer) for text, answer in zip(texts, written, strict=True) if answer]
    scores = await weights.score([text for text, _ in told], [answer for _, answer in told])
    gaps = [best - chosen for score in scores for best, chosen in zip(score.best_logprobs, score.logprobs, strict=True)]
    partings = sum(not first for score in scores for first in score.top1)
    return Comparison(len(gaps), partings, max(gaps, default=0.0), sum(gaps) / max(1, len(gaps)))


def _written(reply: Reply, template: ChatTemplate) -> str | tuple[int, ...]:
    """All that the file chose. Token ids where they are told: a text may be tokenised otherwise than it was written. Else the
    text, which lacks the token that ended it."""
    if reply.token_ids is not None:
        return reply.token_ids
    return reply.text + (template.end_of_turn if reply.finish_reason == "stop" else "")
