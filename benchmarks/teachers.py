"""Do two teachers that are each right on one half of the rows make a better data set together than either alone?

Rows of gsm8k (POTSTILL_DATA names the folder of the data sets; see tests/conftest.py). Two endpoints on loopback answer them:
one is right on the odd rows and wrong on the others, the other the other way round, each at a price of its own. Five arms:

    odd, even   one teacher alone
    mix         each row goes to one of them, as a hash decides
    best        both answer, and the first answer that agrees with the gold answer is kept
    vote        both answer and vote; an answer that contradicts the gold answer has no vote

Every arm runs `generate` and `curate`, which drops answers that contradict the gold answer. `best` and `vote` have to keep
more rows than either alone, all of them right; shares, requests, tokens and costs of the teachers have to be those that the
endpoints counted themselves. What an arm has found is stored in --runs; the same command goes on where it stopped. All arms on
400 rows take twenty seconds.

    python benchmarks/teachers.py [--runs FOLDER] [--rows N] [--arm odd|even|mix|best|vote]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from loopback import Messages, serve_in_thread  # noqa: E402
from potstill.metrics import numbers_equal, parse_final_answer  # noqa: E402
from potstill.pipeline.progress import Silent  # noqa: E402
from potstill.pipeline.run import run_job  # noqa: E402
from potstill.spec import parse_job  # noqa: E402

DATA = (ROOT / os.environ.get("POTSTILL_DATA", "../shared/data")).resolve() / "math"
ARMS: dict[str, dict[str, Any]] = {
    "odd": {"teacher": "odd"},
    "even": {"teacher": "even"},
    "mix": {"teacher": ["odd", "even"], "generation": {"strategy": "mix"}},
    "best": {"teacher": ["odd", "even"], "generation": {"strategy": "best"}},
    "vote": {"teacher": ["odd", "even"], "generation": {"strategy": "vote"}},
}
PRICES = {"odd": (1.0, 4.0), "even": (0.3, 0.9)}  # dollars a million tokens: read, written


@dataclass
class Teacher:
    """Right on every second row, wrong on the others; keeps its own bill."""

    golds: dict[str, str]
    rest: int
    bill: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._places = {question: place for place, question in enumerate(self.golds)}

    def __call__(self, messages: Messages) -> str:
        question = messages[-1]["content"]
        right = self._places[question] % 2 == self.rest
        text = f"The answer is {self.golds[question]}" + ("" if right else "99")
        self.bill.update(requests=1, prompt_tokens=7, completion_tokens=len(text.split()))  # as loopback.completion counts them
        return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark-teachers"))
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--arm", choices=tuple(ARMS))
    options = parser.parse_args()
    folder = options.runs / str(options.rows)
    found = {name: finished(folder, name, options.rows) for name in ARMS if options.arm in (None, name)}
    held = [show(name, result) for name, result in found.items()]
    if set(found) == set(ARMS):
        alone = max(found["odd"]["kept"], found["even"]["kept"])
        for name in ("best", "vote"):
            more = found[name]["kept"] / alone
            held.append(more > 1 and found[name]["right"] == found[name]["kept"])
            print(f"{name}: {more:.2f} times the rows of the better teacher alone, {'holds' if held[-1] else 'DOES NOT HOLD'}")
    print("holds" if all(held) else "DOES NOT HOLD")
    return 0 if all(held) else 1


def finished(folder: Path, name: str, rows: int) -> dict[str, Any]:
    """What an arm has found, read where it was run before."""
    stored = folder / f"{name}.json"
    if not stored.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        result = run(folder, name, rows)
        stored.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    return dict(orjson.loads(stored.read_bytes()))


def run(folder: Path, name: str, rows: int) -> dict[str, Any]:
    golds: dict[str, str] = {}
    for split, count in {"train": rows, "validation": 24, "test": 16}.items():
        with (DATA / f"gsm8k.{split}.jsonl").open("rb") as lines:
            kept = list(islice(lines, count))
        (folder / f"{split}.jsonl").write_bytes(b"".join(kept))
        golds |= {row["question"].strip(): str(parse_final_answer(row["answer"])) for row in map(orjson.loads, kept)}
    teachers = {"odd": Teacher(golds, 1), "even": Teacher(golds, 0)}
    shutil.rmtree(folder / name, ignore_errors=True)  # an arm that was stopped: its endpoints' bill is gone
    with ExitStack() as stack:
        catalog = {}
        for own, teacher in teachers.items():
            server = stack.enter_context(serve_in_thread(teacher))
            price = dict(zip(("input", "output"), PRICES[own], strict=True))
            catalog[own] = {"model": own, "endpoint": server.base_url, "price": price}
        (folder / "catalog.yaml").write_bytes(orjson.dumps(catalog))
        os.environ["POTSTILL_CATALOG"] = str(folder / "catalog.yaml")
        data = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
        values = {"task": "math", "student": "smollm2-135m-instruct", "data": data, **ARMS[name]}
        job = parse_job(values, source=name, folder=folder.resolve(), default_name=name)
        done = run_job(job, folder / name, Silent(), until="curate").root
    return look(done, teachers)


def look(done: Path, teachers: dict[str, Teacher]) -> dict[str, Any]:
    """Rows kept and right, and the teachers' figures beside the endpoints' own."""
    rows = [orjson.loads(line) for line in (done / "curated" / "train.jsonl").read_bytes().splitlines()]
    events = [orjson.loads(line) for line in (done / "events.jsonl").read_bytes().splitlines()]
    (generated,) = [
        event["summary"] for event in events if event["event"] == "finished" and event["stage"] == "generate"
    ][-1:]
    right: Callable[[dict[str, Any]], bool] = lambda row: numbers_equal(  # noqa: E731
        parse_final_answer(row["messages"][-1]["content"]), parse_final_answer(row["reference"])
    )
    return {
        "answered": generated["answered"]["train"],
        "kept": len(rows),
        "right": sum(map(right, rows)),
        "shares": dict(Counter(row["meta"]["teacher"] for row in rows)),
        "teachers": generated["teachers"],
        "bills": {name: dict(teacher.bill) for name, teacher in teachers.items()},
    }


def show(name: str, result: dict[str, Any]) -> bool:
    """Print an arm; whether what it says of the teachers is what the endpoints counted."""
    print(f"{name}: {result['answered']} rows answered, {result['kept']} kept, {result['right']} of them right; "
          f"by teacher: {result['shares']}")
    held = sum(result["shares"].values()) == result["kept"]
    for told in result["teachers"]:
        bill, (read, written) = result["bills"][told["name"]], PRICES[told["name"]]
        cost = (bill["prompt_tokens"] * read + bill["completion_tokens"] * written) / 1e6
        same = all(told[key] == bill[key] for key in bill) and abs(told["cost_usd"] - cost) < 1e-9
        print(f"  {told['name']}: score {told['score']['value']:.3f} (n = {told['score']['n']}), {told['requests']} requests, "
              f"${told['cost_usd']:.6f}; its endpoint counted {bill['requests']} requests, ${cost:.6f}: "
              f"{'the same' if same else 'NOT THE SAME'}")
        held = held and same
    return held


if __name__ == "__main__":
    sys.exit(main())
