"""Part of generate where `generation.mode` is prompts: training rows grow in number until enough of them are kept.

In: the prepared rows, and the answers to them in the spool. Out: the answered new rows in the spool, after all others. Of
several teachers the first writes them, and they are answered as all rows are. Cost: see `potstill.generation.prompts`; after
each round curation looks at all training rows there are.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from potstill.curation import curate
from potstill.errors import InputError, JobFailedError
from potstill.generation import (
    Around,
    Counted,
    Grown,
    Outcome,
    RejectedRow,
    Spool,
    generate_answers,
    grow_prompts,
    way_of,
)
from potstill.pipeline.asking import at_once, context_needed, ledger_of, opened_teachers
from potstill.pipeline.choosing import choosing_judge
from potstill.pipeline.stage import Context
from potstill.pipeline.teachers import Books, plan_of
from potstill.rows import Row
from potstill.spec import PromptsSpec
from potstill.tasks import Task

_WORDS_AROUND = 512  # tokens of what stands around the examples in a request


def grow(
    context: Context, spool: Spool, splits: Mapping[str, int], books: Books, *, top_logprobs: int = 0
) -> Grown:
    """Have new prompts written and answered until `generation.prompts.wanted` training rows would be kept.

    Args:
        spool: Holds the outcomes of the user's rows, as many of each split as `splits` says, those of train first.
        books: Go on with what the teachers have answered so far.
        top_logprobs: See `opened_teachers`.

    Raises:
        BudgetError, EndpointError: see `generate`; what was received stays in the journal.
        InputError: no row can be a model for new ones.
    """
    return asyncio.run(_grow(context, spool, splits, books, top_logprobs))


async def _grow(
    context: Context, spool: Spool, splits: Mapping[str, int], books: Books, top_logprobs: int
) -> Grown:
    job, task, own = context.job, context.task(), context.rows("train")
    held_out, plan = [*context.rows("validation"), *context.rows("test")], job.generation.prompts
    check_models(own, task)
    inner = way_of(task, job.generation)
    size = max(context_needed(inner, own, job.generation.max_tokens), _context_needed(task, own, plan))
    journal = context.folder.journal / "generate"
    ledger = ledger_of(context.teachers, job.generation, journal.parent)
    async with (
        choosing_judge(context, task, ledger) as judge,
        opened_teachers(
            context.teachers, job.generation, journal, books, context=size, ledger=ledger, top_logprobs=top_logprobs
        ) as teachers,
    ):
        strategy, concurrency = plan_of(job, task, judge)(teachers), at_once(teachers)
        way = Counted(inner, task, books.tallies)

        async def answer(rows: Sequence[Row]) -> None:
            first = len(spool)

            def keep(number: int, outcome: Outcome) -> None:
                spool.put(first + number, outcome)
                context.check_canceled()

            await generate_answers(rows, way, strategy, concurrency=concurrency, on_row=keep)

        def kept() -> Counter[str]:
            answered = list(train_rows(spool, splits))
            rows = curate(answered, split="train", spec=job.curation, task=task, held_out=held_out).kept
            return Counter(row.references[0] if task.labels and row.references else "" for row in rows)

        def told(kept: int, prompts: int) -> None:
            context.advance(kept, plan.wanted, f"{prompts} prompts written")

        around = Around(answer, kept, told)
        context.progress.begin(f"{teachers[0].name} writes prompts and answers them", plan.wanted)
        try:
            return await grow_prompts(own, held_out, teachers[0], task, plan, around, concurrency=concurrency)
        finally:
            context.progress.end()


def train_rows(spool: Spool, splits: Mapping[str, int]) -> Iterator[Row]:
    """The answered training rows: the user's, then the new ones."""
    own, new = spool.in_order(0, splits["train"]), spool.in_order(sum(splits.values()))
    return (row for outcome in chain(own, new) if not isinstance(outcome, RejectedRow) for row in outcome)


def check_models(rows: Sequence[Row], task: Task) -> int:
    """How many rows can be a model for new ones.

    Raises:
        InputError: none can.
    """
    reasons = [task.why_no_model(row) for row in rows]
    if None not in reasons:
        raise InputError(
            "no training row can be a model for new prompts", where="key 'generation.mode' of the job file",
            found=f"row {rows[0].id}: {reasons[0]}",
            expected="mode: answers, and more rows of your own; they need no answers",
        )
    return reasons.count(None)


def _context_needed(task: Task, rows: Sequence[Row], plan: PromptsSpec) -> int:
    """Tokens of context for the longest request for a prompt: examples, a persona, and the new prompt itself."""
    longest = max(len(message.content.encode()) for row in rows for message in row.messages) // 2
    return ((plan.examples + 1) * max(longest, plan.max_tokens) + plan.max_tokens + _WORDS_AROUND + 255) // 256 * 256


def summary_of(grown: Grown) -> dict[str, Any]:
    """What the run's events say of it; kept counts the user's own rows too."""
    return {
        "asked": grown.asked, "written": len(grown.rows), "kept": grown.kept, "rejected": _by_rule(grown),
        "ways": dict(Counter(row.meta["grown_by"] for row in grown.rows)),
    }


def check_reached(grown: Grown, plan: PromptsSpec) -> None:
    """Raises:
    JobFailedError: fewer rows would be kept than are wanted.
    """
    if grown.kept < plan.wanted:
        told = ", ".join(f"{count} {rule}" for rule, count in sorted(_by_rule(grown).items())) or "none"
        raise JobFailedError(
            f"the teacher's new prompts bring the training rows to {grown.kept}, {plan.wanted} are wanted",
            where="generated/rejected.jsonl has each rejected prompt with the reason",
            found=f"{grown.asked} prompts asked for, {len(grown.rows)} new rows; rejected: {told}",
            hint=f"set generation.prompts.wanted to {grown.kept}, lower floor, raise tries, or take a better teacher; "
                 "no reply is asked for again",
        )


def _by_rule(grown: Grown) -> dict[str, int]:
    return dict(Counter(prompt.rule for prompt in grown.rejected))
