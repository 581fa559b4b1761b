"""Several teachers in whole jobs, on two loopback endpoints: who answers, what is kept, what the report says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from loopback import LoopbackEndpoint, Messages, serve_in_thread
from pipeline.jobs import events, gold_answer, run_cli, topic_rows, write_job, write_rows_file
from potstill.errors import InputError, JobFailedError
from potstill.metrics import parse_final_answer
from potstill.pipeline.check import check_job
from potstill.pipeline.progress import Silent
from potstill.pipeline.run import run_job
from potstill.spec import JobSpec, parse_job

PRICES = {"odd": (1.0, 2.0), "even": (10.0, 20.0)}  # dollars a million tokens
ROWS = {"train": 60, "validation": 12, "test": 8}


@dataclass
class World:
    """Two teachers, each right on every second row, in a catalogue with their prices, and a folder for a job."""

    folder: Path
    gold: dict[str, str]
    servers: dict[str, LoopbackEndpoint] = field(default_factory=dict)

    def answer(self, rest: int) -> Callable[[Messages], str]:
        def answer(messages: Messages) -> str:
            question = messages[-1]["content"]
            right = list(self.gold).index(question) % 2 == rest
            return f"The answer is {self.gold[question]}" + ("" if right else "99")

        return answer

    def job(self, teacher: Any = ("odd", "even"), **generation: Any) -> JobSpec:
        values: dict[str, Any] = {
            "task": "math", "teacher": list(teacher) if isinstance(teacher, tuple) else teacher,
            "student": "smollm2-135m-instruct", "data": {split: f"{split}.jsonl" for split in ROWS}, "generation": generation,
        }
        return parse_job(values, source="job.yaml", folder=self.folder, default_name="halves")

    def run(self, job: JobSpec, until: str = "curate") -> Path:
        return run_job(job, self.folder / "run", Silent(), until=until).root

    def bill(self, name: str) -> tuple[int, int, int]:
        """What the endpoint itself has counted: requests, and the tokens of prompts (7 each) and answers (a word each)."""
        requests, answer = self.servers[name].requests, self.answer(list(PRICES).index(name) ^ 1)
        return len(requests), 7 * len(requests), sum(len(answer(request.messages).split()) for request in requests)


@pytest.fixture
def world(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    gold: dict[str, str] = {}
    for split, number in ROWS.items():
        with (data_dir / "math" / f"gsm8k.{split}.jsonl").open("rb") as lines:
            rows = [orjson.loads(line) for line in islice(lines, number)]
        write_rows_file(tmp_path / f"{split}.jsonl", rows)
        gold |= {row["question"].strip(): str(parse_final_answer(row["answer"])) for row in rows}
    world = World(tmp_path, gold)
    with serve_in_thread(world.answer(1)) as odd, serve_in_thread(world.answer(0)) as even:
        world.servers = {"odd": odd, "even": even}
        catalog = {
            name: {"model": name, "endpoint": server.base_url, "price": {"input": PRICES[name][0], "output": PRICES[name][1]}}
            for name, server in world.servers.items()
        }
        (tmp_path / "catalog.yaml").write_bytes(orjson.dumps(catalog))
        monkeypatch.setenv("POTSTILL_CATALOG", str(tmp_path / "catalog.yaml"))
        yield world


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def summary(run: Path, stage: str) -> dict[str, Any]:
    finished = [event["summary"] for event in events(run) if event["event"] == "finished" and event["stage"] == stage]
    return dict(finished[-1])


def kept(run: Path) -> list[dict[str, Any]]:
    return lines_of(run / "curated" / "train.jsonl") + lines_of(run / "curated" / "validation.jsonl")


@pytest.mark.parametrize("strategy", ["best", "vote"])
def test_two_half_right_teachers_together_beat_either_alone(world: World, strategy: str) -> None:
    alone = {name: len(kept(world.run(world.job(name)))) for name in PRICES}
    seen = {name: len(server.requests) for name, server in world.servers.items()}
    run = world.run(world.job(strategy=strategy))
    assert {name: len(server.requests) for name, server in world.servers.items()} == seen  # their answers are in the journal
    together = kept(run)
    assert len(together) == sum(alone.values()) == 72 > max(alone.values())
    assert Counter(row["meta"]["teacher"] for row in together) == alone
    noted = {row["meta"].get("verified" if strategy == "best" else "agreement") for row in together}
    assert noted == ({True} if strategy == "best" else {0.5})


def test_shares_scores_and_costs_are_what_the_endpoints_themselves_counted(world: World) -> None:
    run = world.run(world.job(strategy="best"))
    for entry in summary(run, "generate")["teachers"]:
        name = entry["name"]
        requests, prompt, completion = world.bill(name)
        assert (entry["requests"], entry["prompt_tokens"], entry["completion_tokens"]) == (requests, prompt, completion)
        assert requests == entry["asked"] == entry["answered"] == 72
        read, written = PRICES[name]
        assert entry["cost_usd"] == pytest.approx((prompt * read + completion * written) / 1e6)
        assert (entry["score"]["value"], entry["score"]["n"]) == (0.5, 72)


def test_a_mix_asks_each_row_once_and_an_added_row_moves_no_other(world: World) -> None:
    teachers = ({"model": "odd", "weight": 2}, "even")
    run = world.run(world.job(teachers, strategy="mix"), until="generate")
    asked = {name: len(server.requests) for name, server in world.servers.items()}
    assert sum(asked.values()) == 72
    assert 0 < asked["even"] < asked["odd"]
    assert Counter(row["meta"]["teacher"] for row in lines_of(run / "generated" / "train.jsonl"))["odd"] > 30
    added = {"question": "How much is 1 + 1?", "answer": "#### 2"}
    world.gold[added["question"]] = "2"
    rows = lines_of(world.folder / "train.jsonl")
    write_rows_file(world.folder / "train.jsonl", [added, *rows[::-1]])
    run_job(world.job(teachers, strategy="mix"), world.folder / "again", Silent(), until="prepare")
    (world.folder / "again" / "journal").symlink_to(run / "journal", target_is_directory=True)
    run_job(world.job(teachers, strategy="mix"), world.folder / "again", Silent(), until="generate")
    assert sum(len(server.requests) for server in world.servers.values()) == 73


def test_raised_samples_ask_for_the_new_ones_alone_and_all_that_differ_are_kept(world: World) -> None:
    drawn = count()
    varied = {place: f"{question} is drawn as {place}" for place, question in enumerate(("a", "b"))}
    with serve_in_thread(lambda messages: f"{varied[next(drawn) % 2]}: {world.gold[messages[-1]['content']]}") as server:
        teacher = {"model": "varied", "endpoint": server.base_url}
        for samples in (2, 4):
            run = world.run(world.job(teacher, samples=samples))
            assert len(server.requests) == 72 * samples
    rows = kept(run)
    prompts = Counter(row["meta"]["prompt_id"] for row in rows)
    assert len(prompts) == 72
    assert set(prompts.values()) <= {1, 2}  # of four answers at most two differ
    assert sum(prompts.values()) > 72


def test_references_come_from_the_first_teacher_one_each(world: World) -> None:
    rows = lines_of(world.folder / "test.jsonl")
    write_rows_file(world.folder / "test.jsonl", [{"question": row["question"]} for row in rows])
    run = world.run(world.job(strategy="vote", samples=2), until="generate")
    references = lines_of(run / "generated" / "test.jsonl")
    assert [row["meta"]["teacher"] for row in references] == ["odd"] * 8
    assert {name: len(server.requests) for name, server in world.servers.items()} == {"odd": 2 * 72 + 8, "even": 2 * 72}


def test_a_route_is_followed_and_rows_without_one_are_named(world: World) -> None:
    for split in ROWS:
        rows = lines_of(world.folder / f"{split}.jsonl")
        write_rows_file(
            world.folder / f"{split}.jsonl",
            [{**row, "half": list(world.gold).index(row["question"].strip()) % 2} for row in rows],
        )
    routed = ({"model": "odd", "routes": [1]}, {"model": "even", "routes": [0]})
    job = world.job(routed, strategy="route", route_by="meta.half")
    findings = {finding.text for finding in check_job(job, ask_endpoint=False) if finding.subject == "answers"}
    run = world.run(job)
    asked = {name: len(server.requests) for name, server in world.servers.items()}
    assert findings == {f"odd answers {asked['odd']} rows, even answers {asked['even']} rows"}
    assert sum(asked.values()) == len(kept(run)) == 72  # each asked once, by the one who knows
    others = ({"model": "odd", "routes": [1]}, {"model": "even", "routes": [2]})
    lost = world.job(others, strategy="route", route_by="meta.half")
    (error,) = [finding.error for finding in check_job(lost, ask_endpoint=False) if finding.subject == "answers"]
    assert isinstance(error, InputError)
    assert error.what.startswith(f"{asked['even']} of 72 rows have no teacher")
    assert error.found == f"meta.half: '0' ({asked['even']} rows)"
    with pytest.raises(JobFailedError, match="no teacher takes this row"):
        run_job(lost, world.folder / "lost", Silent(), until="generate")


def test_the_judge_chooses_where_no_gold_answer_tells_and_is_asked_once(tmp_path: Path) -> None:
    """Two teachers of free text, one of them good on the even rows; the judge knows a good text when it sees one."""
    write_rows_file(tmp_path / "rows.jsonl", [{"prompt": f"Write a line about the number {number}."} for number in range(40)])

    def writer(rest: int) -> Callable[[Messages], str]:
        return lambda messages: "good" if int(messages[-1]["content"].split()[-1].strip(".")) % 2 == rest else "bad"

    def judge(messages: Messages) -> str:
        return f'{{"reason": "as told", "score": {5 if "good" in messages[-1]["content"] else 2}}}'

    with serve_in_thread(writer(0)) as even, serve_in_thread(writer(1)) as odd, serve_in_thread(judge) as judging:
        job = parse_job(
            {
                "task": "text", "student": "smollm2-135m-instruct", "data": {"train": "rows.jsonl"},
                "teacher": [{"model": "even", "endpoint": even.base_url}, {"model": "odd", "endpoint": odd.base_url}],
                "generation": {"strategy": "best"}, "curation": {"deduplicate": "none"},
                "evaluation": {"judge": {"model": "judge", "endpoint": judging.base_url}},
            },
            source="job.yaml", folder=tmp_path, default_name="judged",
        )
        run = run_job(job, tmp_path / "run", Silent(), until="curate").root
        asked = len(judging.requests)
        (run / "generated" / "train.jsonl").unlink()
        run_job(job, tmp_path / "run", Silent(), until="curate")
    rows = kept(run)
    assert len(rows) == 32
    assert {(row["messages"][-1]["content"], row["meta"]["judge_score"]) for row in rows} == {("good", 5.0)}
    assert 0 < asked == len(judging.requests) <= 64  # what it has said is in the journal


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"task": "conversation", "generation": {"samples": 3, "select": "vote"}}, "cannot be voted on"),
        ({"task": "text", "generation": {"samples": 3, "select": "best"}}, "best cannot be told for 32 of 32 rows"),
        ({"task": "math", "generation": {"samples": 3, "select": "best"}}, "cannot be told for 32 of 32 rows"),
    ],
)
def test_a_choice_that_cannot_be_made_is_found_before_anything_is_asked(
    tmp_path: Path, embedded_gguf: Path, values: dict[str, Any], told: str
) -> None:
    write_rows_file(tmp_path / "rows.jsonl", [{"prompt": f"What is {number} + {number}?"} for number in range(40)])
    job = {"teacher": "smollm2-135m-instruct", "student": "smollm2-135m-instruct", "data": {"train": "rows.jsonl"}, **values}
    spec = parse_job(job, source="job.yaml", folder=tmp_path, default_name="job")
    (error,) = [finding.error for finding in check_job(spec, ask_endpoint=False) if finding.subject == "answers"]
    assert isinstance(error, InputError)
    assert told in error.what


def test_the_report_compares_the_teachers(tiny_student: Path, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    rows = topic_rows(56)
    labels = sorted({row["label"] for row in rows})
    known = {row["text"] for row in rows[::2]}

    def half(messages: Messages) -> str:
        return gold_answer(rows)(messages) if messages[-1]["content"] in known else labels[0]

    with serve_in_thread(gold_answer(rows)) as first, serve_in_thread(half) as second:
        data = write_rows_file(tmp_path / "rows.jsonl", rows)
        job = write_job(
            tmp_path / "job.yaml", first.base_url, tiny_student, data, training={"num_epochs": 1},
            evaluation={"models": ["teacher"]}, export={"formats": []}, generation={"strategy": "vote"},
        )
        panel = [{"model": "good", "endpoint": first.base_url}, {"model": "org/half", "endpoint": second.base_url}]
        job.write_text(yaml.safe_dump({**yaml.safe_load(job.read_text()), "teacher": panel}))
        done = run_cli("run", str(job), "--runs", str(tmp_path / "runs"))
        assert done.returncode == 0, done.stderr
        asked = {"good": len(first.requests), "org/half": len(second.requests)}
    run = tmp_path / "runs" / "topics"
    report = orjson.loads((run / "report.json").read_bytes())
    assert list(report["models"]) == ["teacher", "teacher:org/half"]
    assert report["models"]["teacher"]["accuracy"]["value"] == 1
    assert report["models"]["teacher:org/half"]["name"] == "org/half"
    learnt = lines_of(run / "curated" / "train.jsonl")
    shares = Counter(row["meta"]["teacher"] for row in learnt)
    assert [entry["label"] for entry in report["teachers"]] == ["teacher", "teacher:org/half"]
    for entry in report["teachers"]:
        assert entry["kept"] == shares[entry["name"]]
        assert entry["share"] == shares[entry["name"]] / len(learnt)
        assert entry["cost_usd"] is None  # no price is known
        assert asked[entry["name"]] == entry["requests"] + len(lines_of(run / "rows" / "test.jsonl"))
    assert report["teachers"][0]["score"]["value"] == 1 > report["teachers"][1]["score"]["value"]
    page = (run / "report.html").read_text()
    assert "The teachers" in page
    assert "org/half" in page
