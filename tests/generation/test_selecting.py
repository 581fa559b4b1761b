"""Several answers to a row, and several teachers: who is asked, what is kept, what is asked again. Over HTTP on loopback."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from loopback import LoopbackEndpoint, Messages
from potstill.errors import JobFailedError
from potstill.generation import (
    All,
    Best,
    Counted,
    Direct,
    Everyone,
    Mix,
    Outcome,
    Panel,
    RejectedRow,
    Route,
    Strategy,
    Tally,
    Teacher,
    Vote,
    generate_answers,
    route_of,
)
from potstill.generation.candidate import Candidate
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.journal import Journal
from potstill.inference.metered import Meter, MeteredClient
from potstill.inference.protocol import Sampling
from potstill.rows import Row
from potstill.tasks import Task, get_task

MATH = get_task("math")
LABELS = get_task("classification", ("a", "b", "c"))


class Drawing:
    """Answers with the texts of a list, one after the other, each question with a list of its own."""

    def __init__(self, texts: Callable[[str], Sequence[str]]) -> None:
        self._texts, self._seen = texts, Counter[str]()

    def __call__(self, messages: Messages) -> str:
        question = messages[-1]["content"]
        self._seen[question] += 1
        texts = self._texts(question)
        return texts[(self._seen[question] - 1) % len(texts)]


class World:
    """Teachers on loopback by name, and one journal."""

    def __init__(self, folder: Path, **answers: Callable[[Messages], str]) -> None:
        self._folder, self._answers = folder, answers
        self.servers: dict[str, LoopbackEndpoint] = {}
        self.teachers: dict[str, Teacher] = {}
        self.meters = {name: Meter() for name in answers}

    async def __aenter__(self) -> World:
        self._stack = contextlib.AsyncExitStack()
        journal = self._stack.enter_context(Journal(self._folder))
        for name, answer in self._answers.items():
            server = self.servers[name] = await self._stack.enter_async_context(LoopbackEndpoint(answer))
            engine = EndpointEngine(server.base_url, name, None, timeout_s=20)
            self._stack.push_async_callback(engine.aclose)
            client = MeteredClient(engine, journal, self.meters[name], concurrency=8)
            self.teachers[name] = Teacher(name, client, Sampling(temperature=0.7, max_tokens=100))
        return self

    async def __aexit__(self, *exit_info: object) -> None:
        await self._stack.aclose()

    async def ask(
        self, rows: Sequence[Row], task: Task, strategy: Strategy, tallies: dict[str, Tally] | None = None
    ) -> list[Outcome]:
        found: dict[int, Outcome] = {}
        way = Counted(Direct(task), task, tallies if tallies is not None else {name: Tally() for name in self.teachers})
        await generate_answers(rows, way, strategy, concurrency=8, on_row=found.__setitem__)
        return [found[number] for number in range(len(rows))]

    def requests(self) -> dict[str, int]:
        return {name: len(server.requests) for name, server in self.servers.items()}


def sums(count: int, *, gold: bool = True) -> list[Row]:
    return [
        MATH.row({"id": f"r{n}", "question": f"What is {n} + 1?"} | ({"answer": f"#### {n + 1}"} if gold else {}))
        for n in range(count)
    ]


def said(outcome: Outcome) -> list[str]:
    assert not isinstance(outcome, RejectedRow), outcome.reason
    return [row.messages[-1].content for row in outcome]


def number_of(messages: Messages) -> int:
    return int(messages[-1]["content"].split()[2])


async def test_all_keeps_every_answer_that_differs_under_an_id_of_its_own(tmp_path: Path) -> None:
    drawing = Drawing(lambda question: ["one", "two", "one", "three"])
    (row,) = sums(1)
    async with World(tmp_path, t=drawing) as world:
        (outcome,) = await world.ask([row], MATH, Panel(Everyone([world.teachers["t"]]), All(MATH), samples=4))
        assert world.requests() == {"t": 4}
    assert not isinstance(outcome, RejectedRow)
    assert sorted(said(outcome)) == ["one", "three", "two"]
    assert {row.id for row in outcome} <= {"r0", "r0#2", "r0#3", "r0#4"}
    assert len({row.id for row in outcome}) == 3
    assert {row.meta["prompt_id"] for row in outcome} == {"r0"}


async def test_of_reasoned_answers_those_are_kept_whose_reasoning_differs() -> None:
    (row,) = sums(1)
    candidates = [
        Candidate(("1",), ("stop",), 1, 0.1, "t", sample, rationale=why) for sample, why in enumerate(("a", "b", "a"))
    ]
    learnt = await All(MATH, reasoned=True).choose(row, candidates, asked=3)
    assert [row.meta["rationale"] for row in learnt] == ["a", "b"]
    assert len(await All(MATH).choose(row, candidates, asked=3)) == 1


async def test_one_answer_is_a_row_as_it_ever_was(tmp_path: Path) -> None:
    async with World(tmp_path, t=lambda messages: "2") as world:
        (outcome,) = await world.ask(sums(1), MATH, Panel(Everyone([world.teachers["t"]]), All(MATH)))
    assert not isinstance(outcome, RejectedRow)
    assert [row.id for row in outcome] == ["r0"]
    assert "prompt_id" not in outcome[0].meta


async def test_a_raised_number_of_samples_asks_for_the_new_ones_alone(tmp_path: Path) -> None:
    rows, drawing = sums(5), Drawing(lambda question: ["1", "2", "3", "4", "5"])
    async with World(tmp_path, t=drawing) as world:
        teacher = world.teachers["t"]
        first = await world.ask(rows, MATH, Panel(Everyone([teacher]), All(MATH), samples=2))
        assert world.requests() == {"t": 10}
        more = await world.ask(rows, MATH, Panel(Everyone([teacher]), All(MATH), samples=5))
        assert world.requests() == {"t": 25}
        assert world.meters["t"].usage.requests == 25  # what the journal answered is counted once
    for fewer, many in zip(first, more, strict=True):
        assert len(said(many)) == 5
        assert set(said(fewer)) <= set(said(many))


@pytest.mark.parametrize(
    ("texts", "gold", "kept", "agreement"),
    [
        (["#### 3", "It is 4.", "The answer is 3", "3.0"], None, "#### 3", 0.75),
        (["7", "8"], None, "7", 0.5),  # a tie: the first
        (["8", "7", "about 7 or so, I think: 7"], None, "7", 0.6667),
        (["8", "8", "8", "7"], "7", "7", 0.25),  # the gold answer takes the vote from those that contradict it
        (["8", "8", "9"], "7", "8", 0.6667),  # and leaves it to them where all do
        (["no idea", "none", "5"], None, "5", 0.3333),
        (["no idea", "none"], None, "no idea", 0.0),
    ],
)
async def test_vote(tmp_path: Path, texts: list[str], gold: str | None, kept: str, agreement: float) -> None:
    row = MATH.row({"question": "How many?"} | ({"answer": f"#### {gold}"} if gold else {}))
    names = [f"t{place}" for place in range(len(texts))]
    answers = {name: (lambda messages, text=text: text) for name, text in zip(names, texts, strict=True)}
    async with World(tmp_path, **answers) as world:
        strategy = Panel(Everyone([world.teachers[name] for name in names]), Vote(MATH))
        (outcome,) = await world.ask([row], MATH, strategy)
    assert said(outcome) == [kept]
    assert not isinstance(outcome, RejectedRow)
    assert outcome[0].meta["agreement"] == agreement


async def test_labels_and_short_answers_are_counted_by_what_they_say(tmp_path: Path) -> None:
    label = LABELS.row({"text": "which?"})
    qa = get_task("qa")
    question = qa.row({"question": "Who?"})
    async with World(tmp_path, x=lambda m: "The label is b.", y=lambda m: "c", z=lambda m: "B") as world:
        (found,) = await world.ask([label], LABELS, Panel(Everyone(list(world.teachers.values())), Vote(LABELS)))
        assert said(found) == ["The label is b."]
    async with World(tmp_path / "qa", x=lambda m: "Bob", y=lambda m: "The cat!", z=lambda m: "the cat") as world:
        (found,) = await world.ask([question], qa, Panel(Everyone(list(world.teachers.values())), Vote(qa)))
        assert said(found) == ["The cat!"]


async def test_without_the_verifier_the_gold_answer_has_no_say_in_a_vote(tmp_path: Path) -> None:
    (row,) = sums(1)
    async with World(tmp_path, x=lambda m: "9", y=lambda m: "9", z=lambda m: "1") as world:
        (found,) = await world.ask([row], MATH, Panel(Everyone(list(world.teachers.values())), Vote(MATH, verify=False)))
    assert said(found) == ["9"]


async def test_best_is_the_first_right_answer_and_says_so(tmp_path: Path) -> None:
    async with World(tmp_path, x=lambda m: "no idea", y=lambda m: "#### 5", z=lambda m: "it is 1") as world:
        right, wrong = await world.ask(
            [sums(1)[0], MATH.row({"id": "w", "question": "What is 2 + 2?", "answer": "#### 4"})], MATH,
            Panel(Everyone(list(world.teachers.values())), Best(MATH)),
        )
    assert not isinstance(right, RejectedRow)
    assert not isinstance(wrong, RejectedRow)
    assert (said(right), right[0].meta["teacher"], right[0].meta["verified"]) == (["it is 1"], "z", True)
    assert (said(wrong), wrong[0].meta["verified"]) == (["#### 5"], False)  # the first that can be read


async def test_best_asks_the_judge_where_no_gold_answer_can_tell(tmp_path: Path) -> None:
    judged: list[str] = []

    async def judge(row: Row, texts: Sequence[str]) -> float | None:
        judged.append(texts[-1])
        return {"fair": 2.0, "good": 5.0, "also good": 5.0}.get(texts[-1])

    task = get_task("text")
    texts = {"a": "fair", "b": "mute", "c": "good", "d": "also good"}
    answers = {name: (lambda m, text=text: text) for name, text in texts.items()}
    async with World(tmp_path, **answers) as world:
        panel = Panel(Everyone(list(world.teachers.values())), Best(task, judge))
        (found,) = await world.ask([task.row({"prompt": "write"})], task, panel)
    assert not isinstance(found, RejectedRow)
    assert (said(found), found[0].meta["judge_score"], found[0].meta["teacher"]) == (["good"], 5.0, "c")
    assert judged == ["fair", "mute", "good", "also good"]


async def test_a_mix_follows_the_weights_and_moves_no_row_when_others_are_added(tmp_path: Path) -> None:
    async with World(tmp_path, x=lambda m: "1", y=lambda m: "1", z=lambda m: "1") as world:
        x, y, z = world.teachers.values()
        rows = sums(3000)
        whose = {row.id: mix[0].name for row in rows if (mix := Mix([x, y], [3.0, 1.0]).teachers(row))}
        share = Counter(whose.values())["y"] / len(rows)
        assert share == pytest.approx(0.25, abs=0.03)  # four standard errors
        later = {row.id: Mix([y, x], [1.0, 3.0]).teachers(row)[0].name for row in reversed(rows[:500])}
        assert later.items() <= whose.items()  # neither the order of the rows nor that of the teachers matters
        third = {row.id: Mix([x, y, z], [3.0, 1.0, 4.0]).teachers(row)[0].name for row in rows}
        assert all(third[key] in (name, "z") for key, name in whose.items())


async def test_a_route_follows_a_field_and_the_rest_goes_where_nobody_else_is_named(tmp_path: Path) -> None:
    rows = [
        MATH.row({"id": key, "question": "1 + 1?", **extra})
        for key, extra in {"a": {"topic": "x"}, "b": {"topic": 7}, "c": {"topic": "other"}, "d": {}}.items()
    ]
    async with World(tmp_path, x=lambda m: "from x", seven=lambda m: "from 7", rest=lambda m: "rest") as world:
        table = {"x": world.teachers["x"], "7": world.teachers["seven"]}
        found = await world.ask(rows, MATH, Panel(Route("meta.topic", table, world.teachers["rest"]), All(MATH)))
        assert [said(outcome) for outcome in found] == [["from x"], ["from 7"], ["rest"], ["rest"]]
        with pytest.raises(JobFailedError, match="no teacher takes this row"):
            await world.ask(rows[2:3], MATH, Panel(Route("meta.topic", table), All(MATH)))
    assert route_of(MATH.row({"question": "1?", "meta": {"source": {"kind": True}}}), "meta.source.kind") == "true"


async def test_teachers_are_compared_by_all_their_answers_and_by_what_their_servers_counted(tmp_path: Path) -> None:
    rows = sums(20)
    tallies = {"odd": Tally(), "even": Tally()}

    def right_on(rest: int) -> Callable[[Messages], str]:
        return lambda messages: f"it is {number_of(messages) + (1 if number_of(messages) % 2 == rest else 2)}"

    async with World(tmp_path, odd=right_on(1), even=right_on(0)) as world:
        strategy = Panel(Everyone(list(world.teachers.values())), Best(MATH))
        found = await world.ask([*rows, rows[0]], MATH, strategy, tallies)  # one row twice: its request is sent once
        assert world.requests() == {"odd": 20, "even": 20}
        for name, meter in world.meters.items():
            assert (meter.usage.requests, meter.usage.prompt_tokens) == (20, 7 * 20), name  # loopback: 7 a prompt
            assert meter.usage.completion_tokens == 3 * 20
    assert [tally.asked for tally in tallies.values()] == [21, 21]
    assert [sum(tally.scores) for tally in tallies.values()] == [10, 11]
    kept = [outcome[0] for outcome in found if not isinstance(outcome, RejectedRow)]
    assert all(MATH.verify(row.messages[-1].content, row) for row in kept)
    assert Counter(row.meta["teacher"] for row in kept) == {"odd": 10, "even": 11}
