"""Stage 2, generate: the teacher answers.

In: rows/. Out: generated/{train,validation}.jsonl with the teacher's turns, generated/test.jsonl where the test rows have no
gold answer (the teacher's held-out answers are then the reference), and generated/rejected.jsonl. Cost: one request an answer
and turn that the journal does not hold yet; memory does not grow with the number of rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import accumulate, chain, repeat
from pathlib import Path
from typing import Any

from potstill.catalog import ResolvedModel
from potstill.errors import BudgetError, JobFailedError
from potstill.generation import (
    Direct,
    Grown,
    OneTeacher,
    Outcome,
    RejectedPrompt,
    RejectedRow,
    Spool,
    Teacher,
    generate_answers,
)
from potstill.inference import Client, Journal, model_identity, open_batches, open_engine
from potstill.inference.budget import Account, Budget, Ledger
from potstill.inference.protocol import Engine, Sampling
from potstill.pipeline.curate import Curate
from potstill.pipeline.grow import check_reached, grow, summary_of
from potstill.pipeline.stage import Context
from potstill.rows import Row, write_jsonl, write_rows
from potstill.spec import GenerationSpec
from potstill.tasks import Task

LOCAL_SLOTS = 8
# What decides whether answers are asked for, but not what they are.
_WITHOUT_EFFECT = {"budget_usd", "budget_tokens", "min_teacher_score"}


class Generate:
    """Asks the teacher for every row."""

    name = "generate"
    version = 2

    def inputs(self, context: Context) -> Mapping[str, Any]:
        generation = context.job.generation
        without = _WITHOUT_EFFECT | (set() if generation.mode == "prompts" else {"prompts"})
        inputs: dict[str, Any] = {
            "rows": context.digests(context.folder.rows),
            "teacher": dict(model_identity(context.teacher)),
            "generation": generation.model_dump(mode="json", exclude=without),
        }
        if generation.mode == "prompts":  # rows are added until curation keeps enough of them
            inputs["curation"] = [Curate.version, context.job.curation.model_dump(mode="json")]
        return inputs

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        counts = {split: sum(1 for _ in context.stream(split)) for split in ("train", "validation")}
        if needs_reference(context.stream("test")):
            counts["test"] = sum(1 for _ in context.stream("test"))
        with Spool(context.folder.generated) as spool:
            self._ask(context, counts, spool)
            generation = context.job.generation
            grown = grow(context, spool, counts) if generation.mode == "prompts" else None
            summary = self._write(context, counts, spool, grown)
        if grown is not None:
            check_reached(grown, generation.prompts)
        return summary

    def _ask(self, context: Context, counts: Mapping[str, int], spool: Spool) -> None:
        teacher, total, done = context.teacher, sum(counts.values()), 0

        def keep(number: int, outcome: Outcome) -> None:
            nonlocal done
            done += 1
            spool.put(number, outcome)
            context.advance(done, total)

        def rows() -> Iterator[Row]:
            return (row for split in counts for row in context.stream(split))

        context.progress.begin(f"{teacher.name} answers", total)
        try:
            asyncio.run(
                ask_teacher(
                    teacher, context.task(), rows, context.job.generation, context.folder.journal / "generate", keep,
                    say=context.progress.say,
                )
            )
        except BudgetError as error:
            error.found = f"{error.found}; {done} of {total} rows done"
            raise
        finally:
            context.progress.end()

    def _write(self, context: Context, counts: Mapping[str, int], spool: Spool, grown: Grown | None) -> Mapping[str, Any]:
        """Each split's rows in their order, read from the spool as they are written; new ones stand behind those of train."""
        folder, starts = context.folder.generated, dict(zip(counts, accumulate(counts.values(), initial=0), strict=False))
        (folder / "test.jsonl").unlink(missing_ok=True)
        answered: dict[str, int] = {}
        tokens: int | None = 0 if grown is None else grown.completion_tokens
        for split, count in counts.items():

            def rows(split: str = split, start: int = starts[split], stop: int = starts[split] + count) -> Iterator[Row]:
                nonlocal tokens
                new = spool.in_order(sum(counts.values())) if split == "train" else ()
                for outcome in chain(spool.in_order(start, stop), new):
                    for row in () if isinstance(outcome, RejectedRow) else outcome:
                        own = row.meta["completion_tokens"]
                        tokens = None if tokens is None or own is None else tokens + own
                        yield row

            answered[split] = write_rows(folder / f"{split}.jsonl", rows())
        prompts = [] if grown is None else grown.rejected
        rejected, first = self._write_rejected(folder / "rejected.jsonl", counts, spool, prompts)
        total = sum(answered.values())
        context.progress.say(
            f"answers: {total} rows answered, {rejected} without a usable reply" + (f", the first: {first}" if first else "")
        )
        if not total:
            raise JobFailedError(
                "the teacher answered none of the rows", where="generated/rejected.jsonl names each row and the reason",
                found=first,
            )
        prompted = {} if grown is None else {"prompts": summary_of(grown)}
        return {"answered": answered, "rejected": rejected, "completion_tokens": tokens, **prompted}

    @staticmethod
    def _write_rejected(
        path: Path, counts: Mapping[str, int], spool: Spool, prompts: Sequence[RejectedPrompt]
    ) -> tuple[int, str | None]:
        """How many rows have no usable reply, and the reason of the first; prompts that were rejected stand behind them."""
        splits = chain((split for split, count in counts.items() for _ in range(count)), repeat("train"))
        first: str | None = None

        def entries() -> Iterator[Mapping[str, Any]]:
            nonlocal first
            for split, outcome in zip(splits, spool.in_order(), strict=False):
                if isinstance(outcome, RejectedRow):
                    first = first or outcome.reason
                    yield {**outcome.row.as_dict(), "split": split, "reason": outcome.reason}
            yield from (prompt.as_dict() for prompt in prompts)

        return write_jsonl(path, entries()) - len(prompts), first

    def outputs(self, context: Context) -> Iterable[Path]:
        return sorted(context.folder.generated.glob("*.jsonl"))


async def ask_teacher(
    model: ResolvedModel, task: Task, rows: Callable[[], Iterable[Row]], generation: GenerationSpec, journal_folder: Path,
    on_row: Callable[[int, Outcome], None], *, say: Callable[[str], None] = lambda text: None,
) -> None:
    """Ask for all rows; a reply that the journal in this folder holds is not asked for again.

    Args:
        rows: Gives the rows; called once for each pass over them.
        on_row: See `generate_answers`.
        say: See `open_engine`.

    Raises:
        BudgetError: the job's budget is used up; what was received stays in the journal.
        EndpointError: the endpoint refuses or does not answer at all; what was received stays in the journal.
        InputError: a key, a file or an extra is missing, or the model cannot be opened.
    """
    size = context_needed(task, rows(), generation.max_tokens)
    async with opened_teacher(model, generation, journal_folder, context=size, say=say) as teacher:
        strategy, concurrency = OneTeacher(teacher), teacher.client.concurrency
        await generate_answers(rows(), Direct(task), strategy, concurrency=concurrency, on_row=on_row)


@asynccontextmanager
async def opened_teacher(
    model: ResolvedModel, generation: GenerationSpec, journal_folder: Path, *, context: int,
    say: Callable[[str], None] = lambda text: None, ledger: Ledger | None = None,
) -> AsyncIterator[Teacher]:
    """The teacher behind the journal in this folder, closed at the end.

    Args:
        context: Tokens that its longest request needs.
        ledger: Where several models of a run share its budget; made from the run's journals without it.

    Raises:
        InputError: a key, a file or an extra is missing, or the model cannot be opened.
    """
    sampling = Sampling(temperature=generation.temperature, top_p=generation.top_p, max_tokens=generation.max_tokens)
    concurrency = model.concurrency or (None if model.served else LOCAL_SLOTS)
    with Journal(journal_folder) as journal:
        paid = replace(model, price=model.price_paid)
        account = Account.of(paid, ledger or Ledger.of_run(journal_folder.parent, budget_of(generation), paid.price))
        engine, under_way = await asyncio.to_thread(_open, model, journal, journal_folder, concurrency, context, say)
        try:
            client = Client(engine, journal, concurrency=concurrency, account=account, under_way=under_way)
            yield Teacher(model.name, client, sampling)
        finally:
            await engine.aclose()


def budget_of(generation: GenerationSpec) -> Budget:
    """What a job may spend."""
    return Budget(usd=generation.budget_usd, tokens=generation.budget_tokens)


def _open(
    model: ResolvedModel, journal: Journal, folder: Path, concurrency: int | None, context: int, say: Callable[[str], None]
) -> tuple[Engine, Callable[[str], bool]]:
    """The engine, and what it knows of requests that an earlier process has sent."""
    if model.batch:
        batches = open_batches(model, folder, kept=lambda key: journal.reply(key) is not None, say=say)
        return batches, batches.under_way
    return open_engine(model, concurrency=concurrency, context=context, folder=folder, say=say), lambda key: False


def answers_in_order(
    model: ResolvedModel, task: Task, rows: Sequence[Row], generation: GenerationSpec, journal_folder: Path,
    on_done: Callable[[int, int], None],
) -> list[Outcome]:
    """What `ask_teacher` brings for rows that fit into memory, in their order; `on_done` gets the number done and of all."""
    outcomes: dict[int, Outcome] = {}

    def keep(number: int, outcome: Outcome) -> None:
        outcomes[number] = outcome
        on_done(len(outcomes), len(rows))

    asyncio.run(ask_teacher(model, task, lambda: rows, generation, journal_folder, keep))
    return [outcomes[number] for number in range(len(rows))]


def needs_reference(test: Iterable[Row]) -> bool:
    """Whether the teacher's held-out answers have to serve as the reference, because not all test rows have a gold answer."""
    return any(row.reference is None for row in test)


def context_needed(task: Task, rows: Iterable[Row], max_tokens: int) -> int:
    """Tokens of context a local engine needs a slot: a bound from the bytes of the longest prompt and the answers' limit.

    English text has about four bytes a token; two leave room for other languages, numbers and the template.
    """
    longest = 0
    for row in rows:
        prompt = sum(len(message.content.encode()) + 16 for message in task.teacher_messages(row))
        longest = max(longest, prompt // 2 + task.turns(row) * task.max_tokens(max_tokens))
    return (longest + 64 + 255) // 256 * 256
