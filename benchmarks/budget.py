"""Does a budget hold, whatever is killed?

One arm: `potstill run` asks a loopback teacher that keeps its own bill, a token a byte, for every request that it has received,
those included whose replies are lost on the way (5 % of them); with --own-prompt it counts a prompt of its own, too, which no
request tells of. The run is killed (SIGKILL) 20 times at random moments and started again; then it runs until the budget stops
it, and with a larger budget to its end. The bill must never be above the budget, a run that is stopped must ask for nothing
when started again, and every row must be answered in the end.

It is stored when it is finished; the same command shows it again. Two CPU cores take about two minutes.

    python benchmarks/budget.py [--runs FOLDER] [--kills N] [--seed N] [--own-prompt TOKENS]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from billing import VendorsBill  # noqa: E402
from loopback import Messages, serve_in_thread  # noqa: E402
from potstill.catalog import Price  # noqa: E402

ROWS = 3000
IN_FLIGHT = 16
DELAY_S = 0.1
LOST = 0.05
PRICE = Price(2.0, 10.0)  # dollars a million tokens
LABELS = ("bell", "chain", "frame", "lamp")
SMALL_USD, LARGE_USD = 1.0, 4.0  # the first stops the run before its end, the second does not
MAIN = "from potstill.cli import main; main()"


def main() -> int:
    parser = argparse.ArgumentParser(description="does a budget hold, whatever is killed?")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "benchmarks" / "budget")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own-prompt", type=int, default=0, help="tokens that the teacher adds to each request's")
    options = parser.parse_args()
    store = options.runs / f"kills-{options.kills}-seed-{options.seed}-own-{options.own_prompt}.json"
    if not store.is_file():
        shutil.rmtree(options.runs, ignore_errors=True)
        options.runs.mkdir(parents=True)
        store.write_bytes(orjson.dumps(measure(options.runs, options.kills, random.Random(options.seed), options.own_prompt)))
    return 0 if show(orjson.loads(store.read_bytes())) else 1


@dataclass
class Runner:
    """Starts the job with a budget, in a process of its own as a user would."""

    folder: Path
    endpoint: str

    def start(self, budget_usd: float) -> subprocess.Popen[str]:
        entry = {"model": "dear", "endpoint": self.endpoint, "price": {"input": PRICE.input, "output": PRICE.output}}
        (self.folder / "catalog.yaml").write_text(yaml.safe_dump({"dear": entry}))
        job = {
            "name": "budget",
            "task": "classification",
            "teacher": {"model": "dear", "concurrency": IN_FLIGHT},
            "student": "smollm2-135m-instruct",
            "data": {"train": "rows.jsonl"},
            "generation": {"max_tokens": 32, "budget_usd": budget_usd},
        }
        file = self.folder / "budget.yaml"
        file.write_text(yaml.safe_dump(job))
        command = [sys.executable, "-c", MAIN, "run", str(file), "--runs", str(self.folder), "--until", "generate"]
        environment = {**os.environ, "POTSTILL_CATALOG": str(self.folder / "catalog.yaml"), "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, budget_usd: float) -> tuple[int, str]:
        """Exit code, and what was printed."""
        process = self.start(budget_usd)
        printed = process.communicate()[1]
        return process.returncode, printed


def measure(folder: Path, kills: int, moments: random.Random, own_prompt: int) -> dict[str, Any]:
    """The bill after the kills, when the budget has stopped the run, when it was started once more, and at the end."""
    labels = [LABELS[number % len(LABELS)] for number in range(ROWS)]
    rows = [{"text": f"Where is my {label} number {number}?", "label": label} for number, label in enumerate(labels)]
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))

    def answer(messages: Messages) -> str:
        return messages[-1]["content"].split()[3]

    bill = VendorsBill(answer, PRICE, lost=LOST, own_prompt=own_prompt)
    highest = 0.0
    with serve_in_thread(answer, fault=bill.fault, delay_s=DELAY_S) as server:
        runner = Runner(folder, server.base_url)
        killed = 0
        while killed < kills:
            if not kill_somewhere(runner.start(SMALL_USD), bill, moments):
                break
            killed += 1
            highest = max(highest, bill.usd)
        code, printed = runner.finish(SMALL_USD)
        stopped = code == 1 and "the budget is used up" in printed
        at_stop, requests = bill.usd, bill.requests
        runner.finish(SMALL_USD)
        asked_after_stop = bill.requests - requests
        code, printed = runner.finish(LARGE_USD)
        if code:
            sys.exit(f"with the larger budget the run failed:\n{printed}")
        time.sleep(2 * DELAY_S)
    answered = sum(1 for path in folder.glob("budget/generated/[tv]*.jsonl") for _ in path.open())
    return {
        "kills": killed, "highest": max(highest, at_stop), "stopped": stopped, "at_stop": at_stop,
        "asked_after_stop": asked_after_stop, "at_end": bill.usd, "requests": bill.requests, "answered": answered,
        "wanted": sum(1 for path in folder.glob("budget/rows/[tv]*.jsonl") if path.stem != "test" for _ in path.open()),
    }


def kill_somewhere(process: subprocess.Popen[str], bill: VendorsBill, moments: random.Random) -> bool:
    """SIGKILL at a random moment after the first request; False where the run had ended by then."""
    before = bill.requests
    while bill.requests == before and process.poll() is None:
        time.sleep(0.002)
    time.sleep(moments.uniform(0.0, 2 * DELAY_S))
    ended = process.poll() is not None
    process.kill()
    process.communicate()
    return not ended


def show(found: dict[str, Any]) -> bool:
    """Print bill and budget; whether the budget held."""
    holds = (
        found["stopped"] and found["highest"] <= SMALL_USD and found["at_end"] <= LARGE_USD
        and not found["asked_after_stop"] and found["answered"] == found["wanted"]
    )
    print(f"killed {found['kills']} times at random moments, {IN_FLIGHT} requests in flight, {LOST:.0%} of the replies lost")
    print(f"bill ${found['at_stop']:.4f}, budget ${SMALL_USD:.4f} ({found['at_stop'] / SMALL_USD:.0%}): "
          f"{'the run was stopped by it' if found['stopped'] else 'the run was NOT stopped by it'}")
    print(f"started again with nothing left: {found['asked_after_stop']} requests")
    print(f"with ${LARGE_USD:.2f} it went on: {found['answered']} of {found['wanted']} rows answered, "
          f"bill ${found['at_end']:.4f}, {found['requests']} requests")
    print("holds" if holds else "does not hold")
    return holds


if __name__ == "__main__":
    sys.exit(main())
