"""Whether there is reasoning to learn from, where the student is to learn it."""

from __future__ import annotations

from collections.abc import Iterator

from potstill.catalog import ResolvedModel
from potstill.errors import InputError
from potstill.pipeline.checks.seen import Seen, Told
from potstill.pipeline.checks.teacher import ask_once

_HINT = "set generation.chain_of_thought: true to have the teacher write its reasoning, or rationale: discard"


def look_at_rationale(seen: Seen) -> Iterator[Told]:
    """Whether the teacher is asked to reason, or may do so by itself: only one behind an endpoint tells its thoughts."""
    generation = seen.job.generation
    if generation.rationale == "discard":
        return
    if generation.chain_of_thought:
        yield "the teacher is asked for the reasoning that the student learns"
        return
    for model in seen.teachers:
        if not model.served:
            yield _nothing_to_learn(model, f"{model.name} runs on this machine, where thoughts are not told apart from answers")


def look_at_reasoning(seen: Seen) -> Iterator[Told]:
    """Whether an endpoint returns reasoning beside its answer; asks it one question that is worth a thought."""
    generation = seen.job.generation
    if generation.rationale == "discard" or generation.chain_of_thought:
        return
    for model in seen.teachers:
        if model.kind != "endpoint":
            continue
        reply = ask_once(model, "How many days are there in three weeks and two days?", max_tokens=generation.max_tokens)
        if reply.reasoning is None:
            yield _nothing_to_learn(model, f"{model.name} gives no reasoning beside its answer")
        else:
            yield f"{model.name} gives reasoning beside its answers"


def _nothing_to_learn(model: ResolvedModel, found: str) -> InputError:
    return InputError(
        "the student is to learn reasoning, and there is none", where="key 'generation.rationale' of the job file",
        found=found, hint=_HINT,
    )
