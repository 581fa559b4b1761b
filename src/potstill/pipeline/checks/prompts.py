"""What a job that has new prompts written needs, and what a teacher's terms say of learning from it."""

from __future__ import annotations

from collections.abc import Iterator

from potstill.catalog import terms_of
from potstill.pipeline.checks.seen import Seen, Told
from potstill.pipeline.grow import check_models


def look_at_prompts(seen: Seen) -> Iterator[Told]:
    """Whether there are rows to write new prompts after, and how many have to be written."""
    generation, own = seen.job.generation, seen.splits["train"]
    if generation.mode != "prompts":
        return
    models, missing = check_models(own, seen.task), generation.prompts.wanted - len(own)
    if missing <= 0:
        yield f"none, unless curation drops some of the {len(own)} train rows: {generation.prompts.wanted} are wanted"
        return
    yield (
        f"{models} of {len(own)} train rows are models for new ones; {missing} more are wanted, and up to "
        f"{generation.prompts.tries} prompts asked for each"
    )


def look_at_terms(seen: Seen) -> Iterator[Told]:
    """What each teacher's answers may be used for, as far as it is known: nothing is decided here."""
    for teacher in seen.teachers:
        terms = terms_of(teacher)
        if terms is not None:
            yield f"{teacher.name}: {terms}"
