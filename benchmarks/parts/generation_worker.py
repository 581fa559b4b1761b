"""One client of benchmarks/generation.py, in a process of its own: `generation_worker.py WHO OPTIONS-AS-JSON`.

WHO is potstill, aiohttp, distilabel or curator; the last two run in environments of their own, so this file imports what it
needs where it needs it. The last line it prints is JSON: seconds and CPU seconds of the asking alone, rows answered, and for
potstill the resident megabytes at each tenth.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

QUESTION = "A shop has some boxes with bottles in them, and sells a part of them on each day of the week. " * 4
MAX_TOKENS = 512


def prompt(row: int) -> str:
    return f"This is row {row}. {QUESTION}How many bottles are left?"


def request_of(row: int) -> Any:
    """What potstill asks for a row."""
    from potstill.inference.protocol import Request, Sampling
    from potstill.rows import Message

    return Request((Message("user", prompt(row)),), Sampling(0.7, max_tokens=MAX_TOKENS))


def potstill(options: dict[str, Any]) -> dict[str, Any]:
    """Rows to answers as the stage does it: the journal on, outcomes spooled to disk, written in order at the end."""
    import psutil

    from potstill.generation import Direct, OneTeacher, Outcome, RejectedRow, Spool, Teacher, generate_answers
    from potstill.inference import Client, Journal
    from potstill.inference.endpoint import EndpointEngine
    from potstill.inference.protocol import Sampling
    from potstill.rows import Message, Row
    from potstill.tasks import get_task

    folder, count = Path(options["folder"]), options["rows"]
    resident: list[float] = []
    process = psutil.Process()
    done = 0

    def rows() -> Iterator[Row]:
        return (Row(str(number), (Message("user", prompt(number)),), None) for number in range(count))

    async def ask(spool: Spool) -> None:
        def keep(number: int, outcome: Outcome) -> None:
            nonlocal done
            spool.put(number, outcome)
            done += 1
            if done % max(1, count // 10) == 0:
                resident.append(process.memory_info().rss / 2**20)

        engine = EndpointEngine(options["url"], "loopback", None)
        with Journal(folder / "journal") as journal:
            client = Client(engine, journal, concurrency=options["in_flight"])
            teacher = OneTeacher(Teacher("loopback", client, Sampling(0.7, max_tokens=MAX_TOKENS)))
            await generate_answers(rows(), Direct(get_task("text")), teacher, concurrency=client.concurrency, on_row=keep)
        await engine.aclose()

    with Spool(folder / "generated") as spool:
        measured = timed(lambda: asyncio.run(ask(spool)))
        answered = 0
        with (folder / "answers.jsonl").open("w") as output:
            for outcome in spool.in_order():
                if not isinstance(outcome, RejectedRow):
                    answered += 1
                    output.write(json.dumps([outcome[0].id, outcome[0].messages[-1].content]) + "\n")
    return {**measured, "answered": answered, "resident_mb": resident}


def aiohttp(options: dict[str, Any]) -> dict[str, Any]:
    """The HTTP library alone: post, read, nothing kept."""
    import aiohttp

    async def ask() -> int:
        queue, answered = iter(range(options["rows"])), 0
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def work() -> None:
                nonlocal answered
                for row in queue:
                    messages = [{"role": "user", "content": prompt(row)}]
                    body = json.dumps({"model": "loopback", "messages": messages, "temperature": 0.7, "max_tokens": MAX_TOKENS})
                    headers = {"Content-Type": "application/json"}
                    async with session.post(options["url"] + "/chat/completions", data=body, headers=headers) as response:
                        await response.read()
                        answered += response.status == 200

            await asyncio.gather(*(work() for _ in range(options["in_flight"])))
        return answered

    answers: list[int] = []
    measured = timed(lambda: answers.append(asyncio.run(ask())))
    return {**measured, "answered": answers[0]}


def distilabel(options: dict[str, Any]) -> dict[str, Any]:
    """A pipeline of one TextGeneration step, a batch of as many rows as are in flight."""
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    model = OpenAILLM(
        model="loopback", base_url=options["url"], api_key="none", generation_kwargs={"max_new_tokens": MAX_TOKENS}
    )
    with Pipeline(name="benchmark") as pipeline:
        load = LoadDataFromDicts(
            data=[{"instruction": prompt(row)} for row in range(options["rows"])], batch_size=options["in_flight"]
        )
        load >> TextGeneration(llm=model, input_batch_size=options["in_flight"])
    results: list[Any] = []
    measured = timed(lambda: results.append(pipeline.run(use_cache=False)))
    answers = [row["generation"] for row in results[0]["default"]["train"]]
    return {**measured, "answered": sum(answer is not None for answer in answers)}


def curator(options: dict[str, Any]) -> dict[str, Any]:
    """One LLM over all prompts. Its count of tokens would download a vocabulary, which may be out of reach: words count."""
    os.environ["TELEMETRY_ENABLED"] = "false"
    import tiktoken

    class Words:
        def encode(self, text: str, **kwargs: Any) -> list[str]:
            return text.split()

    tiktoken.get_encoding = lambda name: Words()  # type: ignore[assignment,return-value]
    tiktoken.encoding_for_model = lambda name: Words()  # type: ignore[assignment,return-value]
    from bespokelabs import curator as library

    limits = {"max_requests_per_minute": 10**6, "max_tokens_per_minute": 10**9, "max_concurrent_requests": options["in_flight"]}
    model = library.LLM(
        model_name="loopback", backend="openai",
        backend_params={"base_url": options["url"], "api_key": "none", "require_all_responses": True, **limits},
    )
    results: list[Any] = []
    prompts = [prompt(row) for row in range(options["rows"])]
    measured = timed(lambda: results.append(model(prompts, working_dir=options["folder"])))
    return {**measured, "answered": len(getattr(results[0], "dataset", results[0]))}


def timed(ask: Callable[[], object]) -> dict[str, float]:
    """Seconds on the clock and of this process's CPU."""
    started, cpu = time.perf_counter(), time.process_time()
    ask()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


if __name__ == "__main__":
    clients = {"potstill": potstill, "aiohttp": aiohttp, "distilabel": distilabel, "curator": curator}
    told = clients[sys.argv[1]](json.loads(sys.argv[2]))
    print(json.dumps(told), flush=True)
