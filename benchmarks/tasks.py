"""Does every task run from real rows to a report, and are wrong teacher answers found?

Three arms on public data sets (POTSTILL_DATA names their folder; see tests/conftest.py):

    embedded   60 training rows of each of six data sets, answered by the embedded model, nothing verified
    loopback   the same rows, answered over HTTP with the gold answers, every tenth of them wrong: where a task can be verified,
               exactly the wrong ones have to be rejected
    clinc150   1,000 rows of 151 intents, answered by the same endpoint: the student has to be right at least 20 times as often
               as the best constant answer

Finished runs are kept in --runs; the same command goes on where it stopped. Two CPU cores take about forty minutes.

    python benchmarks/tasks.py [--runs FOLDER] [--arm embedded|loopback|clinc150]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from loopback import Messages, serve_in_thread  # noqa: E402
from potstill.rows import Row  # noqa: E402
from potstill.tasks import Task, get_task  # noqa: E402
from potstill.tasks.reading import read_rows_of  # noqa: E402

DATA = (ROOT / os.environ.get("POTSTILL_DATA", "../shared/data")).resolve()
SETS = {
    "snli": "nli", "star": "conversation", "squad": "qa", "gsm8k": "math", "mts_dialog": "summarization",
    "clinc150": "classification",
}
VERIFIED = ("snli", "squad", "gsm8k", "clinc150")
SPLITS = ("train", "validation", "test")
SMALL = {"train": 60, "validation": 12, "test": 16}
LARGE = {"train": 1000, "validation": 100, "test": 300}
MAX_TOKENS = 256  # the embedded model talks at length, and an answer that is cut off is not learnt from
TIMES_CONSTANT = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark-tasks"))
    parser.add_argument("--arm", choices=("embedded", "loopback", "clinc150"))
    options = parser.parse_args()
    arms = {"embedded": embedded, "loopback": loopback, "clinc150": clinc150}
    held = [arm(options.runs) for name, arm in arms.items() if options.arm in (None, name)]
    print("holds" if all(held) else "DOES NOT HOLD")
    return 0 if all(held) else 1


def embedded(runs: Path) -> bool:
    teacher = "smollm2-135m-instruct"
    shown = [show(run(runs / "embedded", name, SMALL, teacher, verify="none")) for name in SETS]
    return all(shown)


def loopback(runs: Path) -> bool:
    held = []
    for name in SETS:
        teacher = Teacher(name, SMALL)
        with serve_in_thread(teacher.answer) as server:
            endpoint = {"model": "gold", "endpoint": server.base_url, "concurrency": 16}
            folder = run(runs / "loopback", name, SMALL, endpoint, verify="auto")
        held.append(show(folder) and (name not in VERIFIED or teacher.wrong_are_rejected(folder)))
    return all(held)


def clinc150(runs: Path) -> bool:
    teacher = Teacher("clinc150", LARGE)
    with serve_in_thread(teacher.answer) as server:
        endpoint = {"model": "gold", "endpoint": server.base_url, "concurrency": 16}
        training = {"num_epochs": 5, "batch_size": 16, "learning_rate": 5e-4, "warmup_ratio": 0.1}
        folder = run(
            runs / "thousand", "clinc150", LARGE, endpoint, verify="auto", training=training,
            evaluation={"models": ["teacher", "distilled"]},
        )
    report = orjson.loads((folder / "report.json").read_bytes())
    right, constant = report["models"]["distilled"]["accuracy"]["value"], report["best_constant"]["value"]
    print(f"  student {right:.3f}, best constant answer {constant:.4f}: {right / max(constant, 1e-9):.0f} times")
    return show(folder) and teacher.wrong_are_rejected(folder) and right >= TIMES_CONSTANT * constant


class Teacher:
    """Answers with the gold of the rows it was given, every tenth training row wrong."""

    def __init__(self, name: str, counts: dict[str, int]) -> None:
        task = get_task(SETS[name])
        self.rows = {
            split: read_rows_of(DATA / SETS[name] / f"{name}.{split}.jsonl", task, on_bad_row="fail").rows[:count]
            for split, count in counts.items()
        }
        everything = [row for rows in self.rows.values() for row in rows]
        self.task: Task = task.with_rows(everything)
        self.wrong = {row.id: other for row, other in self._swapped()}
        self._turns: dict[tuple[str, ...], str] = {}
        for row in everything:
            golds = self.wrong.get(row.id, row.references if task.name == "conversation" else row.references[:1])
            users = [message.content for message in row.messages if message.role == "user"]
            for place, gold in enumerate(golds, 1 + len(users) - len(golds)):
                self._turns[tuple(users[:place])] = gold

    def _swapped(self) -> list[tuple[Row, list[str]]]:
        """Every tenth training row with the gold answer of the next row that has another one."""
        train, pairs = self.rows["train"], []
        if self.task.name == "conversation":
            return []
        for place in range(0, len(train), 10):
            row = train[place]
            own = self.task.parse(row.references[0], row).value
            others = [other.references[0] for other in [*train[place + 1 :], *train[:place]]]
            wrong = next(text for text in others if self.task.parse(text, row).value not in (own, None, *row.references))
            pairs.append((row, [wrong]))
        return pairs

    def answer(self, messages: Messages) -> str:
        return self._turns[tuple(message["content"] for message in messages if message["role"] == "user")]

    def wrong_are_rejected(self, folder: Path) -> bool:
        lines = (folder / "curated" / "rejected.jsonl").read_bytes().splitlines()
        rejected = {entry["id"]: entry for entry in map(orjson.loads, lines) if entry["rule"] == "contradicts_gold"}
        same = set(rejected) == set(self.wrong)
        print(f"  wrong answers: {len(self.wrong)} planted, {len(set(rejected) & set(self.wrong))} rejected, "
              f"{len(set(rejected) - set(self.wrong))} right ones rejected; e.g. {next(iter(rejected.values()))['reason']}")
        return same


def run(runs: Path, name: str, counts: dict[str, int], teacher: Any, *, verify: str, **sections: Any) -> Path:
    """Run a job in a process of its own, as a user would; returns its run folder."""
    runs.mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        with (DATA / SETS[name] / f"{name}.{split}.jsonl").open("rb") as lines:
            (runs / f"{name}.{split}.jsonl").write_bytes(b"".join(islice(lines, count)))
    job = {
        "name": name,
        "task": SETS[name],
        "teacher": teacher,
        "student": {"model": "smollm2-135m-instruct", "shrink": {"layers": 8}},
        "data": {split: f"{name}.{split}.jsonl" for split in counts},
        "generation": {"temperature": 0.0, "max_tokens": MAX_TOKENS},
        "curation": {"verify": verify},
        "training": {"num_epochs": 1, "batch_size": 8, "learning_rate": 5e-4},
        **sections,
    }
    file = runs / f"{name}.yaml"
    file.write_text(yaml.safe_dump(job))
    folder = runs / name
    if not (folder / "report.json").is_file():
        started = time.perf_counter()
        command = [sys.executable, "-c", "from potstill.cli import main; main()", "run", str(file), "--runs", str(runs)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr}")
        print(f"{runs.name}/{name}: {time.perf_counter() - started:.0f} s")
    return folder


def show(folder: Path) -> bool:
    """Print the main metric of each model; whether all figures lie within their range."""
    report = orjson.loads((folder / "report.json").read_bytes())
    metric = report["main_metric"]
    kept, rejected = report["counts"]["kept"], report["counts"]["rejected"]
    told = ", ".join(f"{label} {model[metric]['value']:.3f}" for label, model in report["models"].items())
    print(f"{folder.parent.name}/{folder.name}: {metric}: {told}; kept {kept['train']}, rejected {rejected}", flush=True)
    inside: Callable[[float], bool] = lambda value: 0.0 <= value <= 1.0  # noqa: E731
    figures = [
        value for model in report["models"].values() for name, value in model.items()
        if isinstance(value, dict) and name != "length_ratio"
    ]
    return all(inside(figure["value"]) and all(map(inside, figure["ci95"])) for figure in figures)


if __name__ == "__main__":
    sys.exit(main())
