"""What the job costs, and whether it may: its price, its budget, and what a score of the teacher needs."""

from __future__ import annotations

from collections.abc import Iterator

from potstill.catalog import ResolvedModel, resolve
from potstill.errors import InputError
from potstill.generation import way_of
from potstill.generation.ways import Dialogue
from potstill.inference.spending import dollars
from potstill.pipeline.checks.seen import Seen, Told
from potstill.pipeline.teachers import assignment_of
from potstill.rows import Row

_BYTES_PER_TOKEN = 4  # of English text; a bound for the price, not a count


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
    asked = asked_rows(seen)
    for teacher in seen.teachers:
        whose = f"{teacher.name}: " if len(seen.teachers) > 1 else ""
        yield whose + _price(teacher, asked[teacher.name], seen)


def asked_rows(seen: Seen) -> dict[str, list[Row]]:
    """The rows that each teacher is asked for, as often as it is asked.

    The rows to learn from as the strategy says, test rows without a gold answer once more by the first teacher, and the test
    rows by each where teachers are measured.
    """
    job, teachers, test = seen.job, seen.teachers, seen.splits["test"]
    asked: dict[str, list[Row]] = {teacher.name: [] for teacher in teachers}
    assignment = assignment_of(job.teachers, teachers, job.generation)
    for row in (*seen.splits["train"], *seen.splits["validation"]):
        for teacher in assignment.teachers(row):
            asked[teacher.name] += [row] * job.generation.samples
    if any(row.reference is None for row in test):
        asked[teachers[0].name] += test
    if "teacher" in job.evaluation.models:
        for rows in asked.values():
            rows += test
    return asked


def _price(model: ResolvedModel, asked: list[Row], seen: Seen) -> str:
    way, max_tokens = way_of(seen.task, seen.job.generation), seen.job.generation.max_tokens
    least = max_tokens if model.kind == "endpoint" else 0  # one behind an endpoint may think before a short answer
    prompt = requests = answers = 0
    for row in asked:
        dialogue = way.longest(row, max_tokens)
        limit = max(dialogue.answer_tokens, least)
        prompt += _prompt_tokens(dialogue, limit)
        requests += dialogue.answers
        answers += dialogue.answers * limit
    counted = f"{requests} requests, about {prompt} prompt tokens, at most {answers} answer tokens"
    if model.kind != "endpoint":
        return f"{counted}; nothing to pay, the teacher runs on this machine"
    if model.price is None:
        return f"{counted}; the price of {model.name} is not known"
    dollars = (prompt * model.price.input + answers * model.price.output) / 1e6
    share = f", {model.price.batch:.0%} of it for what goes in batches" if model.batch else ""
    return f"{counted}: at most about ${dollars:.2f}{share} (prices of {model.price.date or 'the catalogue'})"


def _prompt_tokens(dialogue: Dialogue, limit: int) -> int:
    """Of all requests of a row: each turn is asked with what stands before it, the answers to earlier turns included."""
    once = sum(len(message.content.encode()) // _BYTES_PER_TOKEN + 4 for message in dialogue.asked)
    return dialogue.answers * once + dialogue.answers * (dialogue.answers - 1) // 2 * limit
