"""A budget holds against the endpoint's own bill, whatever is killed, and more of it goes on at no loss."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from billing import VendorsBill
from loopback import serve_in_thread
from pipeline.jobs import gold_answer, run_cli, start_cli, topic_rows, write_job, write_rows_file
from potstill.catalog import Price

ROWS = topic_rows(60)
PRICE = Price(2.0, 10.0)
KILLS = 2
IN_FLIGHT = 4


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], str]:
    """A teacher at an address, with its price in a catalogue of the user's."""

    def name(endpoint: str) -> str:
        entry = f"{{model: loopback, endpoint: '{endpoint}', price: {{input: {PRICE.input}, output: {PRICE.output}}}}}"
        (tmp_path / "own.yaml").write_text(f"dear: {entry}\n")
        monkeypatch.setenv("POTSTILL_CATALOG", str(tmp_path / "own.yaml"))
        return "dear"

    return name


def kill_after(process: subprocess.Popen[bytes], bill: VendorsBill, more: int) -> bool:
    """SIGKILL when so many more requests have arrived; False where the process ended by itself before."""
    target, deadline = bill.requests + more, time.monotonic() + 120
    while bill.requests < target:
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait(10)
    return True


def test_the_vendors_bill_stays_within_the_budget(
    tmp_path: Path, tiny_student: Path, priced: Callable[[str], str]
) -> None:
    known = gold_answer(ROWS)
    bill, moments = VendorsBill(known, PRICE, lost=0.05), random.Random(1)
    data = write_rows_file(tmp_path / "rows.jsonl", ROWS)
    budgets = {"small": 0.03, "large": 1.0}
    with serve_in_thread(known, fault=bill.fault, delay_s=0.03) as server:
        teacher = {"model": priced(server.base_url), "endpoint": None, "concurrency": IN_FLIGHT}

        def command(budget: str) -> tuple[str, ...]:
            generation = {"max_tokens": 32, "budget_usd": budgets[budget]}
            job = write_job(tmp_path / "job.yaml", server.base_url, tiny_student, data, teacher=teacher, generation=generation)
            return ("run", str(job), "--runs", str(tmp_path / "runs"), "--until", "generate")

        kills = [kill_after(start_cli(*command("small")), bill, moments.randint(3, 9)) for _ in range(KILLS)]
        assert kills == [True] * KILLS
        done = run_cli(*command("small"))
        assert done.returncode == 1
        assert "the budget is used up" in done.stderr
        assert "of 52 rows done" in done.stderr
        assert "Traceback" not in done.stderr
        assert 0 < bill.usd <= budgets["small"]

        before = bill.requests
        assert run_cli(*command("small")).returncode == 1
        assert bill.requests == before

        done = run_cli(*command("large"))
        assert done.returncode == 0, done.stderr
        assert bill.usd <= budgets["large"]
    run = tmp_path / "runs" / "topics"
    answered = [orjson.loads(line) for line in (run / "generated" / "train.jsonl").read_bytes().splitlines()]
    assert all(row["messages"][-1]["content"] == row["reference"] for row in answered)
    # What is repeated was in flight at a kill, or its reply was lost.
    assert bill.requests <= 52 + KILLS * IN_FLIGHT + 20
