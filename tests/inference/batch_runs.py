"""What the tests of batches share: a vendor on loopback, and a run against it that can die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anthropic_server import error
from batch_servers import AnthropicBatchServer, OpenAIBatchServer
from loopback import Fault, Messages, status
from potstill.inference import Client, Journal
from potstill.inference.anthropic import AnthropicEngine
from potstill.inference.batch import BatchEngine, Pace
from potstill.inference.batch_anthropic import AnthropicBatches
from potstill.inference.batch_openai import OpenAIBatches
from potstill.inference.client import Answer
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.protocol import Request

AskFor = Callable[..., Request]
Server = Any
QUICK = Pace(linger_s=0.05, gather_s=5.0, poll_s=0.01, tell_s=0.0, patience_s=5.0)


def shout(messages: Messages) -> str:
    return messages[-1]["content"].upper()


def make_server(vendor: str) -> Server:
    return (AnthropicBatchServer if vendor == "anthropic" else OpenAIBatchServer)(shout)


def server_error(vendor: str) -> Fault:
    return error(500, "api_error") if vendor == "anthropic" else status(500)


class Run:
    """What one process has: a journal, an engine, a client."""

    def __init__(self, server: Server, folder: Path, **options: Any) -> None:
        self.said: list[str] = []
        self.journal = Journal(folder)
        service: AnthropicBatches | OpenAIBatches
        if isinstance(server, AnthropicBatchServer):
            service = AnthropicBatches(AnthropicEngine(server.base_url, "m", None))
        else:
            service = OpenAIBatches(EndpointEngine(server.base_url, "m", None))
        account = options.pop("account", None)
        self.engine = BatchEngine(
            service, folder, kept=lambda key: self.journal.reply(key) is not None, pace=QUICK, say=self.said.append, **options
        )
        self.client = Client(
            self.engine, self.journal, concurrency=None, max_attempts=3, account=account, under_way=self.engine.under_way
        )

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        return list(await asyncio.gather(*(self.client.ask(request) for request in requests)))


@asynccontextmanager
async def running(server: Server, folder: Path, **options: Any):
    run = Run(server, folder, **options)
    try:
        yield run
    finally:
        await run.engine.aclose()
        run.journal.close()


async def dies(server: Server, folder: Path, requests: Sequence[Request], when: Callable[[Run], bool], **options: Any) -> None:
    """A run that asks, and is gone as soon as `when` holds: nothing of it is tidied up but what the system frees."""
    async with running(server, folder, **options) as run:
        asking = [asyncio.create_task(run.client._call(request.key(run.engine.identity), request, 1, None, resumed=False))
                  for request in requests]
        async with asyncio.timeout(20):
            while not when(run):  # noqa: ASYNC110  (what it waits for happens at the server)
                await asyncio.sleep(0.005)
        for task in [*run.engine._tasks, *asking]:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def texts(answers: Sequence[Answer]) -> list[str | None]:
    return [None if answer.reply is None else answer.reply.text for answer in answers]
