"""New prompts from few, with a teacher on loopback that sometimes repeats itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from inventive import asks_for_persona, inventive
from loopback import LoopbackEndpoint, Messages
from potstill.generation import Around, Grown, Teacher, grow_prompts
from potstill.generation.diversity import Diversity
from potstill.inference.client import Client
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.journal import Journal
from potstill.inference.protocol import Sampling
from potstill.rows import Row
from potstill.spec import PromptsSpec
from potstill.tasks import Task, get_task

TEXT = get_task("text")
OWN = [TEXT.row({"text": f"the user's own question {number} on {topic}"}) for number, topic in enumerate("abcdefghijkl")]
HELD_OUT = [TEXT.row({"text": "a question that is held out and known to nobody"})]


def all_kept(rows: Sequence[Row]) -> Sequence[Row]:
    return rows


@dataclass
class Outside:
    """Those who call: they answer nothing, and keep the rows that `keep` lets through."""

    own: Sequence[Row]
    task: Task
    keep: Callable[[Sequence[Row]], Sequence[Row]] = all_kept

    def __post_init__(self) -> None:
        self.rounds: list[list[Row]] = []
        self.told: list[tuple[int, int]] = []

    async def answer(self, rows: Sequence[Row]) -> None:
        self.rounds.append(list(rows))

    def kept(self) -> Counter[str]:
        rows = [*self.own, *self.keep([row for part in self.rounds for row in part])]
        return Counter(row.references[0] if self.task.labels else "" for row in rows)


async def grow(
    server: LoopbackEndpoint, folder: Path, *, own: Sequence[Row] = OWN, task: Task = TEXT, concurrency: int = 8,
    keep: Callable[[Sequence[Row]], Sequence[Row]] = all_kept, held_out: Sequence[Row] = HELD_OUT, **plan: object,
) -> tuple[Grown, Outside]:
    outside = Outside(own, task, keep)
    around = Around(outside.answer, outside.kept, lambda *numbers: outside.told.append(numbers))
    engine = EndpointEngine(server.base_url, "teacher", None, timeout_s=20)
    try:
        with Journal(folder) as journal:
            teacher = Teacher("teacher", Client(engine, journal, concurrency=concurrency), Sampling(max_tokens=16))
            spec = PromptsSpec.model_validate(plan)
            return await grow_prompts(own, held_out, teacher, task, spec, around, concurrency=concurrency), outside
    finally:
        await engine.aclose()


async def test_the_wanted_number_is_reached_and_the_floor_holds(tmp_path: Path) -> None:
    async with LoopbackEndpoint(inventive(repeats=0.3)) as server:
        grown, outside = await grow(server, tmp_path, wanted=150)
    assert grown.kept == len(OWN) + len(grown.rows)
    assert outside.told[-1] == (grown.kept, grown.asked)
    assert [prompts for _, prompts in outside.told[:20]] == list(range(1, 21))  # each as it comes
    assert 150 <= grown.kept < 160
    assert [row for part in outside.rounds for row in part] == grown.rows
    rules = Counter(prompt.rule for prompt in grown.rejected)
    assert set(rules) == {"prompt_too_near"}
    assert rules.total() + len(grown.rows) == grown.asked
    assert 0.2 < rules.total() / grown.asked < 0.4  # the teacher's copies, and no others
    there = Diversity((row.id, row.messages[-1].content) for row in (*OWN, *HELD_OUT))
    for row in grown.rows:
        text = row.messages[-1].content
        assert there.nearest(text)[0] <= 0.5
        there.add(row.id, text)
    assert {row.meta["grown_by"] for row in grown.rows} == {"grow", "persona"}


async def test_what_is_near_a_held_out_row_is_rejected_with_that_rows_name(tmp_path: Path) -> None:
    def answer(messages: Messages) -> str:
        return "A question that is held out, and known to somebody!"

    async with LoopbackEndpoint(answer) as server:
        grown, _ = await grow(server, tmp_path, wanted=16, ways=["grow"])
    assert grown.rows == []
    assert f"what row {HELD_OUT[0].id} asks" in grown.rejected[0].reason


@pytest.mark.parametrize(("floor", "rows"), [(0.0, 2), (0.5, 1)])
async def test_a_lower_floor_lets_nearer_prompts_through(tmp_path: Path, floor: float, rows: int) -> None:
    """Two texts that share six of ten word triples, then nothing but these."""
    texts = ("one two three four five six seven eight nine ten", "one two three four five six seven eight apples pears")

    def answer(messages: Messages) -> str:
        return texts[len(messages[-1]["content"]) % 2]

    async with LoopbackEndpoint(answer) as server:
        grown, _ = await grow(server, tmp_path, wanted=40, ways=["grow"], floor=floor)
    assert len(grown.rows) == rows


async def test_nothing_depends_on_which_reply_comes_first(tmp_path: Path) -> None:
    async with LoopbackEndpoint(inventive(repeats=0.2)) as server:
        one_by_one, _ = await grow(server, tmp_path / "a", wanted=100, concurrency=1)
        at_once, _ = await grow(server, tmp_path / "b", wanted=100, concurrency=32)
    assert one_by_one == at_once


async def test_again_asks_nothing_and_more_asks_only_for_more(tmp_path: Path) -> None:
    async with LoopbackEndpoint(inventive(repeats=0.2)) as server:
        first, _ = await grow(server, tmp_path, wanted=100)
        asked = len(server.requests)
        assert (await grow(server, tmp_path, wanted=100))[0] == first
        assert len(server.requests) == asked
        more, _ = await grow(server, tmp_path, wanted=200)
        assert more.rows[: len(first.rows)] == first.rows
        prompts = [request for request in server.requests if not asks_for_persona(request.messages)]
        assert len(prompts) == more.asked
        asked = len(server.requests)
        fewer, _ = await grow(server, tmp_path, wanted=100, own=list(reversed(OWN)))
        assert len(server.requests) == asked
        assert {row.id for row in fewer.rows} == {row.id for row in first.rows}


async def test_prompts_whose_answers_are_not_kept_are_made_up_for(tmp_path: Path) -> None:
    def half(rows: Sequence[Row]) -> Sequence[Row]:
        return rows[::2]

    async with LoopbackEndpoint(inventive()) as server:
        grown, _ = await grow(server, tmp_path, wanted=80, keep=half)
    assert grown.kept >= 80
    assert len(grown.rows) == pytest.approx(2 * (80 - len(OWN)), abs=8)


async def test_labels_come_out_even(tmp_path: Path) -> None:
    task = get_task("classification")
    own = [task.row({"text": f"{label} {n}", "label": label}) for n, label in enumerate("xxxxxxxxxyyz")]
    task = task.with_rows(own)
    async with LoopbackEndpoint(inventive()) as server:
        grown, _ = await grow(server, tmp_path, own=own, task=task, wanted=90)
    labels = Counter(row.references[0] for row in (*own, *grown.rows))
    assert set(labels) == {"x", "y", "z"}
    assert max(labels.values()) - min(labels.values()) <= 3
    assert all(row.references[0] in row.messages[-1].content for row in grown.rows)


async def test_a_teacher_that_only_repeats_itself_is_not_asked_for_ever(tmp_path: Path) -> None:
    async with LoopbackEndpoint(inventive(repeats=1.0)) as server:
        grown, _ = await grow(server, tmp_path, wanted=500)
    assert (grown.asked, grown.rows, grown.kept) == (64, [], len(OWN))  # one generation that brought nothing


async def test_a_teacher_that_needs_too_many_tries_ends_it_after_a_generation(tmp_path: Path) -> None:
    """What it has brought by then can be had by wanting no more, without a request."""
    async with LoopbackEndpoint(inventive(repeats=0.9)) as server:
        grown, _ = await grow(server, tmp_path, wanted=50, tries=2, ways=["grow"])
        assert grown.asked == len(server.requests) == 64
        assert len(OWN) < grown.kept < 50
        again, _ = await grow(server, tmp_path, wanted=grown.kept, tries=2, ways=["grow"])
        assert again.kept == grown.kept
        assert len(server.requests) == 64


async def test_with_more_tries_it_goes_on(tmp_path: Path) -> None:
    async with LoopbackEndpoint(inventive(repeats=0.9)) as server:
        grown, _ = await grow(server, tmp_path, wanted=50, tries=100, ways=["grow"])
    assert grown.kept >= 50
    assert grown.asked > 5 * (grown.kept - len(OWN))


async def test_prompts_have_their_own_sampling(tmp_path: Path) -> None:
    async with LoopbackEndpoint(inventive()) as server:
        await grow(server, tmp_path, wanted=20, temperature=1.3, max_tokens=99)
    assert {(request.body["temperature"], request.body["max_tokens"]) for request in server.requests} == {(1.3, 99)}


async def test_nothing_is_asked_where_enough_is_there(tmp_path: Path) -> None:
    own = [TEXT.row({"text": f"question {number}"}) for number in range(20)]
    async with LoopbackEndpoint(inventive()) as server:
        grown, outside = await grow(server, tmp_path, own=own, wanted=20)
    assert (server.requests, grown.kept, outside.rounds) == ([], 20, [])
