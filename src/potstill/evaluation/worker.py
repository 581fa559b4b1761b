"""The process that measures one model: `python -m potstill.evaluation.worker MEASUREMENT.json`.

In: a `Measurement`. Out: evaluation/<label>.jsonl and its profile; progress on stdout as JSON lines {"done", "total"}; an error
a user can act on as one JSON line on stderr. Cost: every test row is asked once, through the journal, so that a killed
measurement goes on without asking again; local models answer a warm-up and the throughput rows besides.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from potstill.errors import JobFailedError, PotstillError, RunLockedError
from potstill.evaluation.answering import (
    ENDPOINT_CONCURRENCY,
    Answers,
    Question,
    answer_locally,
    answer_remotely,
    measure_throughput,
    prepare_questions,
    received,
    responses_s,
    to_prediction,
    total_tokens,
    warm_up,
)
from potstill.evaluation.model_size import count_parameters, measure_disk_bytes
from potstill.evaluation.predictions import Measurement, Profile, write_predictions, write_profile
from potstill.evaluation.profiling import MemoryMeter, endpoint_cost, machine_cost, summarise_latency
from potstill.inference import Client, Journal, open_engine
from potstill.inference.account import Account
from potstill.inference.budget import Ledger
from potstill.inference.cpus import available_cpus
from potstill.inference.llama_cpp import import_llama_cpp
from potstill.rows import read_rows
from potstill.tasks import get_task

_LOCK_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class _Measured:
    answers: Answers
    memory_bytes: int | None


def main(arguments: Sequence[str]) -> int:
    """Measure the model that the file named by the only argument describes; returns the exit code."""
    report = _claim_stdout()
    _end_with_parent()
    try:
        measure(Measurement.from_json(Path(arguments[0]).read_bytes()), report)
    except PotstillError as error:
        sys.stderr.write(orjson.dumps(error.as_json()).decode() + "\n")
        return error.exit_code
    return 0


def measure(measurement: Measurement, report: Callable[[int, int], None]) -> None:
    """Write the predictions and the profile of one model.

    Raises:
        PotstillError: the model cannot be opened, or it answers no row.
    """
    rows = list(read_rows(measurement.rows))
    questions = prepare_questions(measurement, get_task(measurement.task, measurement.labels), rows)
    if not questions:
        raise JobFailedError("there are no test rows to measure a model on", where=str(measurement.rows))
    measured = asyncio.run(_measure(measurement, questions, report))
    answers = measured.answers.all
    if not received(answers):
        raise JobFailedError(
            f"the {measurement.label} model ({measurement.model.name}) answered none of {len(rows)} test rows",
            found=answers[0].failure,
        )
    write_predictions(measurement.output, map(to_prediction, rows, answers))
    write_profile(measurement.profile, _profile(measurement, measured))


async def _measure(
    measurement: Measurement, questions: Sequence[Question], report: Callable[[int, int], None]
) -> _Measured:
    model, local = measurement.model, not measurement.model.served
    if local:
        _import_libraries(model.kind)

    def on_done(done: int) -> None:
        report(done, len(questions))

    with _open_journal(measurement.journal) as journal, MemoryMeter() as memory:
        concurrency = 1 if local else model.concurrency or ENDPOINT_CONCURRENCY
        engine = open_engine(
            model, concurrency=concurrency, context=measurement.context, threads=measurement.threads, folder=measurement.journal
        )
        try:
            client = Client(engine, journal, concurrency=concurrency, account=_account(measurement))
            if not local:
                return _Measured(
                    await answer_remotely(client, questions, measurement.sample, concurrency, on_done), memory_bytes=None
                )
            await warm_up(engine, questions)
            answers = await answer_locally(client, questions, measurement.sample, on_done)
            memory_bytes = memory.growth_bytes
        finally:
            await engine.aclose()
    # Opened anew: every slot has a context of its own, which must not count as memory of a model that answers one at a time.
    throughput = await _throughput(measurement, questions)
    return _Measured(Answers(answers, answers, throughput, measurement.concurrency if throughput else None), memory_bytes)


def _account(measurement: Measurement) -> Account | None:
    """What the model costs counts in the budget of the run, whose other journals are on disk."""
    model, budget = measurement.model, measurement.budget
    return None if budget is None else Account.of(model, Ledger.of_run(measurement.journal.parent, budget, model.price))


def _import_libraries(kind: str) -> None:
    """Before memory is measured: a library is the engine's size, not the model's."""
    if kind == "gguf":
        import_llama_cpp()
    else:
        import torch  # noqa: F401
        import transformers  # noqa: F401


def _open_journal(folder: Path) -> Journal:
    """The journal, waiting for the worker of a run that was killed a moment ago: it may be on its way out."""
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            return Journal(folder)
        except RunLockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


async def _throughput(measurement: Measurement, questions: Sequence[Question]) -> float | None:
    engine = open_engine(
        measurement.model,
        concurrency=measurement.concurrency,
        context=measurement.context,
        threads=measurement.threads,
    )
    try:
        return await measure_throughput(engine, questions, measurement.concurrency)
    finally:
        await engine.aclose()


def _profile(measurement: Measurement, measured: _Measured) -> Profile:
    model, answers = measurement.model, measured.answers
    replies = [part.reply for part in received(answers.all) if part.reply is not None]
    prompt_tokens = total_tokens([reply.prompt_tokens for reply in replies])
    completion_tokens = total_tokens([reply.completion_tokens for reply in replies])
    if model.kind == "endpoint":
        cost = endpoint_cost(model.price, prompt_tokens, completion_tokens, len(replies))
    else:  # what a machine with a GPU costs an hour is not known here
        unknown = model.served or _on_accelerator()
        cost = None if unknown else machine_cost(answers.throughput_rps, measurement.threads or available_cpus())
    latency = summarise_latency(responses_s(answers.alone))
    return Profile(
        parameters=count_parameters(model),
        disk_bytes=measure_disk_bytes(model),
        memory_bytes=measured.memory_bytes,
        inference_time=latency.mean if latency else None,
        latency_p50=latency.p50 if latency else None,
        latency_p95=latency.p95 if latency else None,
        throughput_rps=answers.throughput_rps,
        throughput_concurrency=answers.throughput_concurrency,
        cost_per_1k_requests=cost.per_1k_requests if cost else None,
        responses=len(replies),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        assumptions=(cost.assumption,) if cost else (),
    )


def _on_accelerator() -> bool:
    """Whether torch has used a GPU in this process: what such a machine costs an hour is not known here."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _claim_stdout() -> Callable[[int, int], None]:
    """Keep stdout for progress alone: whatever else is printed, by native code too, goes to stderr."""
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def report(done: int, total: int) -> None:
        stream.write(orjson.dumps({"done": done, "total": total}) + b"\n")

    return report


def _end_with_parent() -> None:
    """End this process when the pipe on its stdin closes, as it does when the process that started it dies."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def wait_for_end() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
