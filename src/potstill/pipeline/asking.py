"""Teachers are opened, asked for rows, and closed: for the stage that generates, and for whoever asks a few rows.

What goes in: models, rows, and who of them is asked for what. What comes out: what became of each row, as soon as it is known.
What it costs: one request an answer and turn that the journal does not hold yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from potstill.catalog import Price, ResolvedModel
from potstill.errors import InputError
from potstill.generation import Counted, Gate, OneTeacher, Outcome, Teacher, Way, generate_answers, way_of
from potstill.generation.estimate import dry_clients, estimate_rows
from potstill.inference import Journal, model_identity, open_batches, open_engine
from potstill.inference.account import Account
from potstill.inference.budget import Budget, Ledger
from potstill.inference.metered import MeteredClient
from potstill.inference.protocol import Capabilities, Engine, Sampling
from potstill.pipeline.teachers import Books, Plan, panel_of
from potstill.rows import Row, content_hash
from potstill.spec import GenerationSpec, TeacherSpec
from potstill.tasks import Task

LOCAL_SLOTS = 8


@dataclass(frozen=True, slots=True)
class Pass:
    """Rows to be asked, and by which strategy.

    rows: gives them; called once for each time they are gone through. plan: the strategy, given the teachers. compared: the
    answers say how the teachers compare.
    """

    rows: Callable[[], Iterable[Row]]
    plan: Plan
    compared: bool = False


def first_alone(teachers: Sequence[Teacher]) -> OneTeacher:
    """References are all by one teacher, so that its own figure is its agreement with itself."""
    return OneTeacher(teachers[0])


async def ask_teachers(
    models: Sequence[ResolvedModel], task: Task, passes: Sequence[Pass], generation: GenerationSpec, journal_folder: Path,
    on_row: Callable[[int, Outcome], None], books: Books, *, say: Callable[[str], None] = lambda text: None,
    gate: Gate | None = None, ledger: Ledger | None = None, estimated: bool = False, top_logprobs: int = 0,
) -> None:
    """Ask for all rows, one pass after the other; a reply that the journal in this folder holds is not asked for again.

    Args:
        on_row: See `generate_answers`; rows are numbered through all passes.
        books: Where it is written down how the teachers compare, and what their replies have taken.
        say, ledger, top_logprobs: See `opened_teachers`.
        gate: What the first pass has to come through before the rest is asked.
        estimated: First say what is still to be asked, and what that costs.

    Raises:
        BudgetError: the job's budget is used up; what was received stays in the journal.
        EndpointError: the endpoint refuses or does not answer at all; what was received stays in the journal.
        InputError: a key, a file or an extra is missing, or the model cannot be opened.
        JobFailedError: the teachers did not pass the gate.
    """
    way = way_of(task, generation)
    size = context_needed(way, chain.from_iterable(one.rows() for one in passes), generation.max_tokens)
    opened = opened_teachers(
        models, generation, journal_folder, books, context=size, say=say, ledger=ledger, top_logprobs=top_logprobs
    )
    async with opened as teachers:
        if estimated:
            await _say_estimate(passes, way, teachers, models, say)
        if gate is not None:
            names, strategy = " and ".join(teacher.name for teacher in teachers), passes[0].plan(teachers)
            await gate.passing(names, way, strategy, concurrency=at_once(teachers), say=say)
        start = 0
        for one in passes:
            start += await _ask(one, start, teachers, Counted(way, task, books.tallies) if one.compared else way, on_row)


async def _say_estimate(
    passes: Sequence[Pass], way: Way, teachers: Sequence[Teacher], models: Sequence[ResolvedModel], say: Callable[[str], None]
) -> None:
    dry = dry_clients(teachers, models)
    for one in passes:
        await estimate_rows(one.rows(), way, one.plan(teachers), dry)
    for model in models:
        say(f"to ask of {model.name}: {dry[model.name].estimate.told(model)}")


async def _ask(
    one: Pass, start: int, teachers: Sequence[Teacher], way: Way, on_row: Callable[[int, Outcome], None]
) -> int:
    """How many rows there were; they are numbered from `start`."""
    done = 0

    def keep(number: int, outcome: Outcome) -> None:
        nonlocal done
        done += 1
        on_row(start + number, outcome)

    await generate_answers(one.rows(), way, one.plan(teachers), concurrency=at_once(teachers), on_row=keep)
    return done


def at_once(teachers: Sequence[Teacher]) -> int:
    """Rows that can be asked at once."""
    return sum(teacher.client.concurrency for teacher in teachers)


@asynccontextmanager
async def opened_teachers(
    models: Sequence[ResolvedModel], generation: GenerationSpec, journal_folder: Path, books: Books, *, context: int,
    say: Callable[[str], None] = lambda text: None, ledger: Ledger | None = None, top_logprobs: int = 0,
) -> AsyncIterator[list[Teacher]]:
    """The teachers behind the journal in this folder, closed at the end; they share the run's budget.

    Args:
        context: Tokens that the longest request needs.
        say: See `open_engine`.
        ledger: Where others that are asked at the same time share the run's budget; made from the run's journals without it.
        top_logprobs: Of how many of the likeliest tokens the teachers tell the log-probabilities with their answers.

    Raises:
        InputError: a key, a file or an extra is missing, or a model cannot be opened, or tells no log-probabilities of use.
    """
    sampling = Sampling(temperature=generation.temperature, top_p=generation.top_p, max_tokens=generation.max_tokens)
    async with AsyncExitStack() as stack:
        journal = stack.enter_context(Journal(journal_folder))
        ledger = ledger or ledger_of(models, generation, journal_folder.parent)
        teachers = []
        for model in models:
            concurrency = model.concurrency or (None if model.served else LOCAL_SLOTS)
            shared = len(models) == 1 or not (model.batch or model.engine)
            own = journal_folder if shared else _own_folder(model, journal_folder)
            engine, under_way = await asyncio.to_thread(_open, model, journal, own, concurrency, context, say)
            stack.push_async_callback(engine.aclose)
            if top_logprobs:
                check_logprobs(model.name, engine.capabilities, generation.temperature)
            client = MeteredClient(
                engine, journal, books.meters[model.name], concurrency=concurrency, under_way=under_way,
                account=Account.of(replace(model, price=model.price_paid), ledger),
            )
            teachers.append(Teacher(model.name, client, sampling, top_logprobs))
        yield teachers


def check_logprobs(name: str, told: Capabilities, temperature: float) -> None:
    """Raises:
    InputError: the teacher tells no log-probabilities of its own distribution with answers drawn at this temperature.
    """
    if told.logprobs == "none":
        raise InputError(
            "this teacher does not tell the log-probabilities of its answers", where=name,
            expected="an OpenAI-style endpoint that does, or a .gguf file",
            hint="train on its text, or take its signals from its weights",
        )
    if told.logprobs == "tempered" and temperature not in (0.0, 1.0):
        raise InputError(
            "this teacher tells log-probabilities at the sampling temperature alone", where=f"{name}, generation.temperature",
            found=temperature, expected="1.0 (or 0, greedy), at which they are those of the model itself",
        )


def _own_folder(model: ResolvedModel, journal_folder: Path) -> Path:
    """Where one of several teachers keeps its list of batches, or what its server prints: by what the model is."""
    folder = journal_folder / content_hash(dict(model_identity(model)))[:8]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _open(
    model: ResolvedModel, journal: Journal, folder: Path, concurrency: int | None, context: int, say: Callable[[str], None]
) -> tuple[Engine, Callable[[str], bool]]:
    """The engine, and what it knows of requests that an earlier process has sent."""
    if model.batch:
        batches = open_batches(model, folder, kept=lambda key: journal.reply(key) is not None, say=say)
        return batches, batches.under_way
    return open_engine(model, concurrency=concurrency, context=context, folder=folder, say=say), lambda key: False


def ledger_of(models: Sequence[ResolvedModel], generation: GenerationSpec, journals: Path) -> Ledger:
    """What a run may still spend. Requests of which no journal says what they cost count as the dearest of these models'."""
    prices = [price for model in models if (price := model.price_paid) is not None]
    dearest = Price(max(one.input for one in prices), max(one.output for one in prices)) if prices else None
    return Ledger.of_run(journals, budget_of(generation), dearest)


def budget_of(generation: GenerationSpec) -> Budget:
    """What a job may spend."""
    return Budget(usd=generation.budget_usd, tokens=generation.budget_tokens)


def answers_in_order(
    model: ResolvedModel, task: Task, rows: Sequence[Row], generation: GenerationSpec, journal_folder: Path,
    on_done: Callable[[int, int], None], *, once: bool = False,
) -> list[Outcome]:
    """What one teacher brings for rows that fit into memory, in their order; on_done: the number done and of all.

    once: one answer a row, whatever the settings say of samples.
    """
    outcomes: dict[int, Outcome] = {}

    def keep(number: int, outcome: Outcome) -> None:
        outcomes[number] = outcome
        on_done(len(outcomes), len(rows))

    one = TeacherSpec(model=model.name)
    asked = Pass(lambda: rows, first_alone if once else lambda teachers: panel_of([one], teachers, generation, task))
    asyncio.run(ask_teachers([model], task, [asked], generation, journal_folder, keep, Books.of([model])))
    return [outcomes[number] for number in range(len(rows))]


def context_needed(way: Way, rows: Iterable[Row], max_tokens: int) -> int:
    """Tokens of context a local engine needs a slot: a bound from the bytes of the longest dialogue and the answers' limit.

    English text has about four bytes a token; two leave room for other languages, numbers and the template.
    """
    longest = 0
    for row in rows:
        dialogue = way.longest(row, max_tokens)
        prompt = sum(len(message.content.encode()) + 16 for message in dialogue.asked)
        longest = max(longest, prompt // 2 + dialogue.answers * dialogue.answer_tokens)
    return (longest + 64 + 255) // 256 * 256
