"""Stage 2, generate: the teachers answer.

In: rows/. Out: generated/{train,validation}.jsonl with the teacher's turns, generated/test.jsonl where the test rows have no
gold answer (the first teacher's held-out answers, one a row, are then the reference), and generated/rejected.jsonl. Cost: one
request an answer and turn that the journal does not hold yet; memory does not grow with the number of rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, islice, repeat
from pathlib import Path
from typing import Any

from potstill.errors import BudgetError, JobFailedError
from potstill.generation import Gate, Grown, Outcome, RejectedPrompt, RejectedRow, Spool
from potstill.generation.gate import SCORED_ROWS, SMOKE_ROWS
from potstill.inference import model_identity
from potstill.pipeline.asking import Pass, ask_teachers, first_alone, ledger_of
from potstill.pipeline.choosing import choosing_judge
from potstill.pipeline.curate import Curate
from potstill.pipeline.grow import check_reached, grow, summary_of
from potstill.pipeline.judge import judge_inputs
from potstill.pipeline.stage import Context
from potstill.pipeline.teachers import Books, plan_of, selection_of, told_logprobs
from potstill.rows import Row, write_jsonl, write_rows
from potstill.tasks import Task

# What decides whether answers are asked for, but not what they are.
_WITHOUT_EFFECT = {"budget_usd", "budget_tokens", "min_teacher_score"}


class Generate:
    """Asks the teachers for every row."""

    name = "generate"
    version = 3

    def inputs(self, context: Context) -> Mapping[str, Any]:
        generation = context.job.generation
        without = _WITHOUT_EFFECT | (set() if generation.mode == "prompts" else {"prompts"})
        inputs: dict[str, Any] = {
            "rows": context.digests(context.folder.rows),
            "teachers": [
                {"model": dict(model_identity(model)), "name": model.name, "weight": spec.weight, "routes": spec.routes}
                for model, spec in zip(context.teachers, context.job.teachers, strict=True)
            ],
            "generation": generation.model_dump(mode="json", exclude=without),
        }
        if told := told_logprobs(context.job.training, context.teacher):
            inputs["top_logprobs"] = told
        if selection_of(generation) == "best":
            inputs |= judge_inputs(context)
        if selection_of(generation) == "vote":  # wrong answers have no vote, where they are not to be kept
            inputs["verify"] = context.job.curation.verify
        if generation.mode == "prompts":  # rows are added until curation keeps enough of them
            inputs["curation"] = [Curate.version, context.job.curation.model_dump(mode="json")]
        return inputs

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        counts = {split: sum(1 for _ in context.stream(split)) for split in ("train", "validation")}
        if needs_reference(context.stream("test")):
            counts["test"] = sum(1 for _ in context.stream("test"))
        with Spool(context.folder.generated) as spool:
            books, generation = Books.of(context.teachers), context.job.generation
            self._ask(context, counts, spool, books)
            told = told_logprobs(context.job.training, context.teacher)
            grown = grow(context, spool, counts, books, top_logprobs=told) if generation.mode == "prompts" else None
            # How a corrected teacher answers the rows that it was tuned on does not tell how good it is.
            figures = books.figures(scored=context.job.correction is None)
            summary = {**self._write(context, counts, spool, grown), "teachers": figures}
        if grown is not None:
            check_reached(grown, generation.prompts)
        return summary

    def _ask(self, context: Context, counts: Mapping[str, int], spool: Spool, books: Books) -> None:
        task, teachers, total, done = context.task(), context.teachers, sum(counts.values()), 0

        def keep(number: int, outcome: Outcome) -> None:
            nonlocal done
            done += 1
            spool.put(number, outcome)
            context.advance(done, total)

        def rows(*splits: str) -> Iterator[Row]:
            return (row for split in splits if split in counts for row in context.stream(split))

        async def ask() -> None:
            generation, journal, say = context.job.generation, context.folder.journal / "generate", context.progress.say
            ledger = ledger_of(teachers, generation, journal.parent)
            async with choosing_judge(context, task, ledger) as judge:
                learnt = Pass(lambda: rows("train", "validation"), plan_of(context.job, task, judge), compared=True)
                passes = [learnt, Pass(lambda: rows("test"), first_alone)]
                gate = self._gate(context, task, rows)
                await ask_teachers(
                    teachers, task, passes, generation, journal, keep, books, say=say, gate=gate, ledger=ledger,
                    estimated=True, top_logprobs=told_logprobs(context.job.training, context.teacher),
                )

        names = " and ".join(teacher.name for teacher in teachers)
        context.progress.begin(f"{names} {'answers' if len(teachers) == 1 else 'answer'}", total)
        try:
            asyncio.run(ask())
        except BudgetError as error:
            error.found = f"{error.found}; {done} of {total} rows done"
            raise
        finally:
            context.progress.end()

    @staticmethod
    def _gate(context: Context, task: Task, rows: Callable[[str], Iterable[Row]]) -> Gate:
        """The first rows of the run, and validation rows to score the teacher by."""
        gold = (row for row in rows("validation") if row.reference is not None)
        teachers, wanted = context.teachers, context.job.generation.min_teacher_score
        return Gate(
            task, list(islice(rows("train"), SMOKE_ROWS)), list(islice(gold, SCORED_ROWS)), wanted,
            stops=any(teacher.kind == "endpoint" for teacher in teachers), knows_first=context.job.correction is not None,
            at_once=any(teacher.batch for teacher in teachers),
        )

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


def needs_reference(test: Iterable[Row]) -> bool:
    """Whether the teacher's held-out answers have to serve as the reference, because not all test rows have a gold answer."""
    return any(row.reference is None for row in test)
