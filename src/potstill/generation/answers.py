"""Teachers answer rows.

What goes in: prepared rows, one after the other, and a strategy with the teachers behind it. What comes out: for every row, as
soon as its answers are there, the rows that training may learn from (the teacher's own turns in place of the gold ones), or the
reason why there is none. What it costs: one request an answer and turn that the journal does not hold yet, and memory for the
rows in flight alone. Nothing is judged here: truncated, refused and wrong answers are curation's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from potstill.generation.candidate import Candidate, Failure, Outcome, RejectedRow
from potstill.generation.strategies import Ask, Strategy
from potstill.generation.ways import Way
from potstill.inference.client import run_all
from potstill.rows import Row


async def generate_answers(
    rows: Iterable[Row], way: Way, strategy: Strategy, *, concurrency: int, on_row: Callable[[int, Outcome], None]
) -> None:
    """Ask for every row, `concurrency` rows at a time; a row is pulled when it can be asked for.

    Args:
        way: How each answer is got.
        strategy: Who is asked, and which answers are kept.
        on_row: Called once a row with its number, from 0 in the order of `rows`, and what became of it, in no certain order.

    Raises:
        EndpointError: an endpoint refuses or does not answer at all; what was received stays in the journal.
    """
    queue = iter(enumerate(rows))

    async def work() -> None:
        for number, row in queue:
            on_row(number, await _answer(row, way, strategy))

    await run_all(work() for _ in range(concurrency))


async def _answer(row: Row, way: Way, strategy: Strategy) -> Outcome:
    asks = strategy.asks(row)
    found: dict[int, Candidate | Failure] = {}

    async def ask(place: int, wanted: Ask) -> None:
        found[place] = await way.ask(wanted.teacher, row, wanted.sample)

    if len(asks) == 1:
        await ask(0, asks[0])
    else:
        await run_all(ask(place, wanted) for place, wanted in enumerate(asks))
    in_order = [found[place] for place in range(len(asks))]
    candidates = [entry for entry in in_order if isinstance(entry, Candidate)]
    if candidates:
        return tuple(await strategy.choose(row, candidates))
    return RejectedRow(row, next(entry.reason for entry in in_order if isinstance(entry, Failure)))
