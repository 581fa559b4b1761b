"""What the job costs, and whether it may: its price, its budget, and what a score of the teacher needs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from potstill.catalog import ResolvedModel, resolve
from potstill.errors import InputError
from potstill.generation import OneTeacher, Teacher, way_of
from potstill.generation.estimate import DryClient, Estimate, TokenCounter, estimate_rows, tokenizer_of
from potstill.generation.prompts import ask_for_prompts
from potstill.inference.protocol import Sampling
from potstill.inference.spending import dollars
from potstill.pipeline.checks.seen import Seen, Told
from potstill.pipeline.teachers import assignment_of
from potstill.rows import Row


def look_at_budget(seen: Seen) -> Iterator[Told]:
    """Whether a budget in dollars can be kept: what a request costs has to be known before it is sent."""
    usd, tokens = seen.job.generation.budget_usd, seen.job.generation.budget_tokens
    judge = seen.job.evaluation.judge
    models = [("teacher", teacher) for teacher in seen.teachers] + ([] if judge is None else [("judge", resolve(judge))])
    for role, model in models:
        if usd is None or model.kind != "endpoint" or model.price is not None:
            continue
        entry = f"{model.name}: {{model: ..., endpoint: ..., price: {{input: 0.5, output: 1.5}}}}"
        yield InputError(
            f"a budget in dollars needs the {role}'s price, which is not known",
            where="key 'generation.budget_usd' of the job file",
            found=f"{model.name} has no price in the catalogue",
            expected=f"an entry of your own, in dollars a million tokens: {entry}",
            hint="put it into a YAML file and let POTSTILL_CATALOG name that, or set generation.budget_tokens instead",
        )
    limits = [] if usd is None else [dollars(usd)]
    limits += [] if tokens is None else [f"{tokens} tokens"]
    if limits:
        yield f"the run ends before it has cost more than {' or '.join(limits)}"


def look_at_gold(seen: Seen) -> Iterator[Told]:
    """Whether there are gold answers to score the teacher by, where the job asks for a score."""
    wanted = seen.job.generation.min_teacher_score
    if wanted is None:
        return
    rows = [row for split in ("train", "validation") for row in seen.splits[split]]
    scored = sum(row.reference is not None for row in rows)
    if not scored:
        raise InputError(
            "a teacher can only be scored by gold answers, and no row has one",
            where="key 'generation.min_teacher_score' of the job file",
            found=f"{len(rows)} rows to learn from, none with a gold answer",
            hint="add gold answers to the validation rows, or leave the key out",
        )
    yield f"the teacher's first answers have to score {wanted:g} in {seen.task.main_metric}"


def look_at_price(seen: Seen) -> Iterator[Told]:
    """What each teacher costs at most."""
    learnt, measured = asked_rows(seen)
    for teacher in seen.teachers:
        whose = f"{teacher.name}: " if len(seen.teachers) > 1 else ""
        estimate = _estimate(teacher, learnt[teacher.name], measured, seen)
        yield whose + estimate.told(teacher)
    yield from _of_new_prompts(seen)


def _of_new_prompts(seen: Seen) -> Iterator[Told]:
    """What it takes to write the rows that are wanted beyond the user's, and to answer them, by each teacher that does."""
    job, own = seen.job, seen.splits["train"]
    missing = job.generation.prompts.wanted - len(own)
    if job.generation.mode != "prompts" or missing <= 0:
        return
    writer = seen.teachers[0]
    dry = DryClient(TokenCounter(tokenizer_of(writer)), local=not writer.served)
    asked = ask_for_prompts(own, Teacher(writer.name, dry, Sampling(max_tokens=1)), seen.task, job.generation.prompts, missing)
    learnt = _asked_to_learn(seen, asyncio.run(asked))
    yield f"new prompts, where each is kept at the first try, written by {writer.name}: {dry.estimate.told(writer)}"
    for teacher in seen.teachers:
        yield f"answers to those by {teacher.name}: {_estimate(teacher, learnt[teacher.name], [], seen).told(teacher)}"


def _asked_to_learn(seen: Seen, rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows as often as each teacher is asked for them, by its name."""
    asked: dict[str, list[Row]] = {teacher.name: [] for teacher in seen.teachers}
    assignment = assignment_of(seen.job.teachers, seen.teachers, seen.job.generation)
    for row in rows:
        for teacher in assignment.teachers(row):
            asked[teacher.name] += [row] * seen.job.generation.samples
    return asked


def asked_rows(seen: Seen) -> tuple[dict[str, list[Row]], list[Row]]:
    """The rows that each teacher is asked for in generation, as often as it is asked, and those that all are measured on.

    The rows to learn from as the strategy says; test rows without a gold answer once more, by the first teacher.
    """
    test = seen.splits["test"]
    asked = _asked_to_learn(seen, (*seen.splits["train"], *seen.splits["validation"]))
    if any(row.reference is None for row in test):
        asked[seen.teacher.name] += test
    return asked, test if "teacher" in seen.job.evaluation.models else []


def _estimate(model: ResolvedModel, learnt: list[Row], measured: list[Row], seen: Seen) -> Estimate:
    """What is learnt from is asked in the job's way; what is measured too, but for the rounds of a dense summary."""
    dry = DryClient(TokenCounter(tokenizer_of(model)), local=not model.served)
    generation = seen.job.generation
    teacher = Teacher(model.name, dry, Sampling(max_tokens=generation.max_tokens))

    async def count() -> None:
        for rows, settings in ((learnt, generation), (measured, generation.model_copy(update={"chain_of_density": False}))):
            await estimate_rows(rows, way_of(seen.task, settings), OneTeacher(teacher), {model.name: dry})

    asyncio.run(count())
    return dry.estimate
