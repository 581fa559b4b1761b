"""Stage 2, generate: the teacher answers.

In: rows/. Out: generated/{train,validation}.jsonl with the teacher's turns, generated/test.jsonl where the test rows have no
gold answer (the teacher's held-out answers are then the reference), and generated/rejected.jsonl. Cost: one request a row and
turn that the journal does not hold yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from potstill.catalog import ResolvedModel
from potstill.errors import JobFailedError
from potstill.generation import RejectedRow, generate_answers
from potstill.inference import Client, Journal, model_identity, open_engine
from potstill.inference.protocol import Sampling
from potstill.pipeline.stage import Context
from potstill.rows import Row, write_jsonl, write_rows
from potstill.spec import GenerationSpec
from potstill.tasks import Task

LOCAL_SLOTS = 8
ENDPOINT_CONCURRENCY = 32


class Generate:
    """Asks the teacher for every row."""

    name = "generate"
    version = 1

    def inputs(self, context: Context) -> Mapping[str, Any]:
        return {
            "rows": context.digests(context.folder.rows),
            "teacher": dict(model_identity(context.teacher)),
            "generation": context.job.generation.model_dump(mode="json"),
        }

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        splits = {split: context.rows(split) for split in ("train", "validation")}
        test = context.rows("test")
        if needs_reference(test):
            splits["test"] = test
        rows = [row for part in splits.values() for row in part]
        outcomes = iter(self._ask(context, rows))
        by_split = {split: list(islice(outcomes, len(part))) for split, part in splits.items()}
        return self._write(context, by_split)

    def _ask(self, context: Context, rows: list[Row]) -> list[Row | RejectedRow]:
        teacher, journal = context.teacher, context.folder.journal / "generate"
        context.progress.begin(f"{teacher.name} answers", len(rows))
        try:
            return asyncio.run(
                ask_teacher(teacher, context.task(), rows, context.job.generation, journal, context.advance)
            )
        finally:
            context.progress.end()

    def _write(self, context: Context, outcomes: Mapping[str, list[Row | RejectedRow]]) -> Mapping[str, Any]:
        folder = context.folder.generated
        answered = {split: [row for row in part if isinstance(row, Row)] for split, part in outcomes.items()}
        (folder / "test.jsonl").unlink(missing_ok=True)
        for split, rows in answered.items():
            write_rows(folder / f"{split}.jsonl", rows)
        rejected = [(split, entry) for split, part in outcomes.items() for entry in part if isinstance(entry, RejectedRow)]
        write_jsonl(
            folder / "rejected.jsonl",
            ({**entry.row.as_dict(), "split": split, "reason": entry.reason} for split, entry in rejected),
        )
        rows = [row for part in answered.values() for row in part]
        context.progress.say(
            f"answers: {len(rows)} rows answered, {len(rejected)} without a usable reply"
            + (f", the first: {rejected[0][1].reason}" if rejected else "")
        )
        if not rows:
            raise JobFailedError(
                "the teacher answered none of the rows", where="generated/rejected.jsonl names each row and the reason",
                found=rejected[0][1].reason if rejected else None,
            )
        tokens = [row.meta["completion_tokens"] for row in rows]
        return {
            "answered": {split: len(part) for split, part in answered.items()},
            "rejected": len(rejected),
            "completion_tokens": sum(tokens) if None not in tokens else None,
        }

    def outputs(self, context: Context) -> Iterable[Path]:
        return sorted(context.folder.generated.glob("*.jsonl"))


async def ask_teacher(
    teacher: ResolvedModel, task: Task, rows: Sequence[Row], generation: GenerationSpec, journal_folder: Path,
    on_done: Callable[[int, int], None],
) -> list[Row | RejectedRow]:
    """One outcome a row, in order; a reply that the journal in this folder holds is not asked for again.

    Raises:
        EndpointError: the endpoint refuses or does not answer at all; what was received stays in the journal.
        InputError: a key, a file or an extra is missing, or the model cannot be opened.
    """
    sampling = Sampling(temperature=generation.temperature, top_p=generation.top_p, max_tokens=generation.max_tokens)
    concurrency = teacher.concurrency or (ENDPOINT_CONCURRENCY if teacher.kind == "endpoint" else LOCAL_SLOTS)
    size = context_needed(task, rows, generation.max_tokens)
    with Journal(journal_folder) as journal:
        engine = await asyncio.to_thread(open_engine, teacher, concurrency=concurrency, context=size)
        try:
            client = Client(engine, journal, concurrency=concurrency)
            return await generate_answers(rows, task, client, sampling, concurrency=concurrency, on_done=on_done)
        finally:
            await engine.aclose()


def needs_reference(test: Sequence[Row]) -> bool:
    """Whether the teacher's held-out answers have to serve as the reference, because not all test rows have a gold answer."""
    return any(row.reference is None for row in test)


def context_needed(task: Task, rows: Sequence[Row], max_tokens: int) -> int:
    """Tokens of context a local engine needs a slot: a bound from the bytes of the longest prompt and the answers' limit.

    English text has about four bytes a token; two leave room for other languages, numbers and the template.
    """
    longest = 0
    for row in rows:
        prompt = sum(len(message.content.encode()) + 16 for message in task.teacher_messages(row))
        longest = max(longest, prompt // 2 + task.turns(row) * task.max_tokens(max_tokens))
    return (longest + 64 + 255) // 256 * 256
