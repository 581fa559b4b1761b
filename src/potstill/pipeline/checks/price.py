"""What the job costs, and whether it may: its price, its budget, and what a score of the teacher needs."""

from __future__ import annotations

from collections.abc import Iterator

from potstill.catalog import resolve
from potstill.errors import InputError
from potstill.inference.spending import dollars
from potstill.pipeline.checks.seen import Seen, Told
from potstill.rows import Row
from potstill.tasks import Task

_BYTES_PER_TOKEN = 4  # of English text; a bound for the price, not a count


def look_at_budget(seen: Seen) -> Iterator[Told]:
    """Whether a budget in dollars can be kept: what a request costs has to be known before it is sent."""
    usd, tokens = seen.job.generation.budget_usd, seen.job.generation.budget_tokens
    judge = seen.job.evaluation.judge
    models = {"teacher": seen.teacher} | ({} if judge is None else {"judge": resolve(judge)})
    for role, model in models.items():
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
    """What the teacher costs at most: every row once, and the test rows again where they have no gold answer."""
    from potstill.pipeline.generate import needs_reference

    job, model, splits, task = seen.job, seen.teacher, seen.splits, seen.task
    limit = job.generation.max_tokens if model.kind == "endpoint" else task.max_tokens(job.generation.max_tokens)
    test_times = needs_reference(splits["test"]) + ("teacher" in job.evaluation.models)
    asked = splits["train"] + splits["validation"] + splits["test"] * test_times
    prompt = sum(_prompt_tokens(task, row, limit) for row in asked)
    requests = sum(task.turns(row) for row in asked)
    answers = requests * limit
    counted = f"{requests} requests, about {prompt} prompt tokens, at most {answers} answer tokens"
    if model.kind != "endpoint":
        yield f"{counted}; nothing to pay, the teacher runs on this machine"
    elif model.price is None:
        yield f"{counted}; the price of {model.name} is not known"
    else:
        dollars = (prompt * model.price.input + answers * model.price.output) / 1e6
        yield f"{counted}: at most about ${dollars:.2f} (prices of {model.price.date or 'the catalogue'})"


def _prompt_tokens(task: Task, row: Row, limit: int) -> int:
    """Of all requests of a row: each turn is asked with what stands before it, the answers to earlier turns included."""
    once = sum(len(message.content.encode()) // _BYTES_PER_TOKEN + 4 for message in task.teacher_messages(row))
    turns = task.turns(row)
    return turns * once + turns * (turns - 1) // 2 * limit
