"""The judge: its key or its files, whether it would judge itself, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator

from potstill.catalog import ResolvedModel
from potstill.errors import InputError
from potstill.evaluation.judged import opponents_of
from potstill.inference import model_identity
from potstill.inference.spending import dollars
from potstill.judging import ENDPOINT_TOKENS, LOCAL_TOKENS
from potstill.pipeline.checks.models import look_at_model
from potstill.pipeline.checks.seen import Seen, Told, as_files
from potstill.pipeline.checks.teacher import ask_once
from potstill.pipeline.opened_judge import PROMPT_TOKENS

_BYTES_PER_TOKEN = 4  # of English text; a bound for the price, not a count


def look_at_judge(seen: Seen) -> Iterator[Told]:
    """Whether it can be opened, and is neither teacher nor student: a model favours its own answers."""
    spec, judge = seen.job.evaluation.judge, seen.judge
    if spec is None or judge is None:
        return
    for part, model in (*(("teacher", teacher) for teacher in seen.teachers), ("student", seen.student)):
        if not spec.allow_self and is_same_model(judge, model):
            raise InputError(
                "a model would judge its own answers", found=f"the judge is the {part}, {model.name}",
                expected="another model than teacher and student",
                hint="evaluation.judge.allow_self: true allows it; it favours what it wrote itself",
            )
    yield from look_at_model(judge)


def look_at_judges_endpoint(seen: Seen) -> Iterator[Told]:
    """Ask it one short question."""
    if seen.judge is not None and seen.judge.kind == "endpoint":
        yield f"answered in {ask_once(seen.judge).latency_s:.2f} s"


def look_at_judges_price(seen: Seen) -> Iterator[Told]:
    """What it costs at most: a request a test row and model, and two a row and comparison."""
    spec, judge, job, task = seen.job.evaluation.judge, seen.judge, seen.job, seen.task
    if spec is None or judge is None:
        return
    rows, models = seen.splits["test"], job.evaluation.models
    scores, pairs = len(models), 2 * len(opponents_of(models)) * spec.pairwise
    asked = sum(len(message.content.encode()) for row in rows for message in task.teacher_messages(row)) // _BYTES_PER_TOKEN
    answers = sum(task.turns(row) for row in rows) * job.generation.max_tokens
    requests = len(rows) * (scores + pairs)
    own = PROMPT_TOKENS + len((spec.rubric or "").encode()) // _BYTES_PER_TOKEN
    read = (scores + pairs) * asked + (scores + 2 * pairs) * answers + requests * own
    written = requests * (LOCAL_TOKENS if judge.kind != "endpoint" else ENDPOINT_TOKENS)
    counted = f"at most {requests} requests, {read} prompt tokens, {written} answer tokens"
    if judge.kind != "endpoint":
        yield f"{counted}; nothing to pay, the judge runs on this machine"
    elif judge.price is None:
        yield f"{counted}; the price of {judge.name} is not known"
    else:
        cost = (read * judge.price.input + written * judge.price.output) / 1e6
        yield f"{counted}: at most about {dollars(cost)} (prices of {judge.price.date or 'the catalogue'})"


def is_same_model(one: ResolvedModel, other: ResolvedModel) -> bool:
    """Whether two names lead to the same model by content: the same address and name, or files that are the same."""
    if "endpoint" in (one.kind, other.kind):
        return one.kind == other.kind and model_identity(one) == model_identity(other)
    if one.kind == other.kind == "hub":
        return one.model == other.model
    files = [as_files(one), as_files(other)]
    return None not in files and len({str(model_identity(found)) for found in files if found is not None}) == 1
