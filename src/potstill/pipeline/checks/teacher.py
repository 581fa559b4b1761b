"""The teacher's endpoint: whether it answers, and what the job's answers cost at most."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

from potstill.catalog import ResolvedModel
from potstill.errors import EndpointError
from potstill.inference import Client, Journal, open_engine
from potstill.inference.client import Answer
from potstill.inference.protocol import Reply, Request, Sampling
from potstill.pipeline.checks.models import shown_address
from potstill.pipeline.checks.seen import Seen, Told
from potstill.rows import Message, Row
from potstill.tasks import Task

ANSWER_WITHIN_S = 30.0
REFUSED_FOR_S = 3.0  # of being told to come back later
_BYTES_PER_TOKEN = 4  # of English text; a bound for the price, not a count


def look_at_endpoint(seen: Seen) -> Iterator[Told]:
    """Ask one short question; within half a minute there is an answer or an error."""
    model = seen.teacher
    if model.kind != "endpoint":
        yield "none: the teacher runs on this machine"
        return
    yield f"answered in {ask_once(model).latency_s:.2f} s"


def ask_once(model: ResolvedModel) -> Reply:
    """The reply of an endpoint to one short question.

    Raises:
        EndpointError: there is none within half a minute.
    """
    answer = asyncio.run(_ask(model))
    if answer.reply is None:
        raise EndpointError("the endpoint does not answer", where=shown_address(model), found=answer.failure)
    return answer.reply


async def _ask(model: ResolvedModel) -> Answer:
    request = Request((Message("user", "Say yes."),), Sampling(max_tokens=8))
    engine = open_engine(model, concurrency=1)
    try:
        with tempfile.TemporaryDirectory() as folder, Journal(Path(folder)) as journal:
            client = Client(engine, journal, concurrency=1, max_attempts=2, no_progress_s=REFUSED_FOR_S)
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await client.ask(request)
    except TimeoutError as error:
        raise EndpointError(
            f"the endpoint sent no answer within {ANSWER_WITHIN_S:g} s", where=shown_address(model),
            hint="see that it runs and that its address is right; --offline leaves this check out",
        ) from error
    finally:
        await engine.aclose()


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
