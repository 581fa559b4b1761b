"""The teacher's endpoint: whether it answers."""

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
from potstill.rows import Message

ANSWER_WITHIN_S = 30.0
REFUSED_FOR_S = 3.0  # of being told to come back later


def look_at_endpoint(seen: Seen) -> Iterator[Told]:
    """Ask each one short question; within half a minute there is an answer or an error."""
    models = [model for model in seen.teachers if model.kind == "endpoint"]
    if not models:
        yield "none: the teacher runs on this machine"
    for model in models:
        whose = f"{model.name} " if len(seen.teachers) > 1 else ""
        yield f"{whose}answered in {ask_once(model).latency_s:.2f} s"


def ask_once(model: ResolvedModel, question: str = "Say yes.", *, max_tokens: int = 8) -> Reply:
    """The reply of an endpoint to one short question.

    Raises:
        EndpointError: there is none within half a minute.
    """
    answer = asyncio.run(_ask(model, question, max_tokens))
    if answer.reply is None:
        raise EndpointError("the endpoint does not answer", where=shown_address(model), found=answer.failure)
    return answer.reply


async def _ask(model: ResolvedModel, question: str, max_tokens: int) -> Answer:
    request = Request((Message("user", question),), Sampling(max_tokens=max_tokens))
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
