"""Is asking a teacher fast, frugal, fair to the endpoint, and is nothing lost or asked twice?

Arms, each against a loopback endpoint in a process of its own (benchmarks/parts/generation_server.py), each client in
another one:

    speed-256  20,000 rows at 0.2 s, 256 in flight, journal on; bare aiohttp, distilabel and curator in the same run
    speed-64   the same at 64 in flight; the ideal is 320 requests/s
    memory     200,000 rows, no latency: resident memory, and its growth after the first tenth
    capacity   an endpoint that allows 64 in flight, which the client is not told
    faults     5 % of tries are cut, 5xx or broken JSON, 1 % hang for 20 s: every row is answered, none twice
    kill       SIGKILL at 20 random moments of one run, and the output beside an undisturbed run's

Peers answer the same rows, and everybody's time runs from the call to the last answer in hand, so a start of seconds weighs
more where --rows is small. Peers live in environments of their own, which are built under --peers when they are first needed
(distilabel and bespokelabs-curator from PyPI, a minute or two each). Every finished arm is kept in --results; the same command
goes on with the next. The machine should have nothing else to do.

    python benchmarks/generation.py [--arm speed-256] [--rows N] [--results FILE] [--peers FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from parts.arms import at_least, at_most, peer_python, show_bars

PARTS = Path(__file__).resolve().parent / "parts"
PACKAGES = {"distilabel": ("distilabel[openai]", "requests"), "curator": ("bespokelabs-curator",)}
ROWS = {"speed-256": 20_000, "speed-64": 20_000, "memory": 200_000, "capacity": 20_000, "faults": 5_000, "kill": 5_000}
LATENCY_S = 0.2
CPU_BAR_MS = 0.6
KILLS = 20

Options = argparse.Namespace
Result = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--arm", choices=tuple(ROWS))
    parser.add_argument("--rows", type=int, help="in place of the arm's own number, to see that it runs")
    parser.add_argument("--results", type=Path, default=Path("runs/benchmark-generation.json"))
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "potstill-benchmarks")
    options = parser.parse_args()
    arms = {"memory": memory, "capacity": capacity, "faults": faults, "kill": kill}
    done: dict[str, Result] = json.loads(options.results.read_text()) if options.results.exists() else {}
    for name in ROWS:
        if options.arm not in (None, name):
            continue
        rows = options.rows or ROWS[name]
        if done.get(name, {}).get("rows") != rows:
            arm = arms.get(name)
            result = arm(rows) if arm else speed(rows, int(name.rpartition("-")[2]), options.peers)
            done[name] = {"rows": rows, **result}
            options.results.parent.mkdir(parents=True, exist_ok=True)
            options.results.write_text(json.dumps(done, indent=2))
        show(name, done[name])
    held = all(bar["holds"] for name, result in done.items() if options.arm in (None, name) for bar in result["bars"])
    print("holds" if held else "DOES NOT HOLD")
    return 0 if held else 1


def show(name: str, result: Result) -> None:
    print(f"{name}, {result['rows']} rows")
    for line in result["said"]:
        print(f"  {line}")
    show_bars(result["bars"])


def speed(rows: int, in_flight: int, peers: Path) -> Result:
    """Rows a second of everybody, one after the other, on one server each."""
    rates: dict[str, float] = {}
    said = []
    names = ("aiohttp", "potstill", "distilabel", "curator") if in_flight == 256 else ("aiohttp", "potstill")
    cpu_ms = 0.0
    for name in names:
        python = peer_python(name, peers, PACKAGES[name]) if name in PACKAGES else Path(sys.executable)
        with server("--latency", LATENCY_S) as url, folder() as place:
            told = ask(name, url, rows, in_flight, place, python)
        if told["answered"] != rows:
            raise SystemExit(f"{name} answered {told['answered']} of {rows} rows")
        rates[name] = rows / told["seconds"]
        each_ms = 1000 * told["cpu_seconds"] / rows
        cpu_ms = each_ms if name == "potstill" else cpu_ms
        said.append(f"{name:<11}{rates[name]:8.1f} rows/s  {each_ms:6.3f} ms CPU of its main process each")
    ours, ideal = rates["potstill"], in_flight / LATENCY_S
    if in_flight == 256:
        bars = [
            at_least("potstill / bare aiohttp", ours / rates["aiohttp"], 0.9),
            at_least("potstill / curator", ours / rates["curator"], 3.2),
            at_least("potstill / distilabel", ours / rates["distilabel"], 8.0),
        ]
    else:
        bars = [at_least(f"potstill / ideal {ideal:.0f}/s", ours / ideal, 0.93)]
    return {"said": said, "bars": [*bars, at_most("ms CPU a request", cpu_ms, CPU_BAR_MS)]}


def memory(rows: int) -> Result:
    """Resident memory at each tenth of the rows."""
    with server("--latency", 0) as url, folder() as place:
        told = ask("potstill", url, rows, 256, place)
    resident = told["resident_mb"]
    return {
        "said": ["MB resident at each tenth: " + " ".join(f"{value:.0f}" for value in resident)],
        "bars": [at_most("MB resident", max(resident), 400.0), at_most("last / first tenth", resident[-1] / resident[0], 1.25)],
    }


def capacity(rows: int) -> Result:
    """The client is told nothing; the endpoint refuses beyond 64."""
    allows = 64
    with server("--latency", LATENCY_S, "--allows", allows) as url, folder() as place:
        told = ask("potstill", url, rows, None, place)
        seen = json.loads(urlopen(stats_url(url)).read())
    ideal = allows / LATENCY_S
    rate = rows / told["seconds"]
    late = seen["settled_refused"] / max(1, seen["settled"])
    return {
        "said": [f"{rate:.1f} requests/s; {seen['refused']} refused, {seen['settled_refused']} of them after ten seconds"],
        "bars": [
            at_least("rows answered", told["answered"] / rows, 1.0),
            at_least(f"rate / ideal {ideal:.0f}/s", rate / ideal, 0.9),
            at_most("share refused after ten seconds", late, 0.05),
        ],
    }


def faults(rows: int) -> Result:
    """Everything that can go wrong with a reply does."""
    with server("--latency", LATENCY_S, "--faults") as url, folder() as place:
        told = ask("potstill", url, rows, 256, place)
        seen = json.loads(urlopen(stats_url(url)).read())
        counts = Counter(answers(place))
    ids = Counter(row for row, _ in counts.elements())
    return {
        "said": [f"{told['seconds']:.1f} s; {seen['requests'] - rows} tries beyond the first"],
        "bars": [
            at_least("rows answered", len(ids) / rows, 1.0),
            at_most("rows answered twice in the output", sum(count > 1 for count in ids.values()), 0),
        ],
    }


def kill(rows: int) -> Result:
    """A run that is killed again and again, and one that is not."""
    in_flight, moments = 64, sorted(random.Random(7).sample(range(in_flight_or(rows), rows - in_flight_or(rows)), KILLS))
    with server("--latency", 0.05) as url, folder() as calm:
        ask("potstill", url, rows, in_flight, calm)
        undisturbed = answers(calm)
    with server("--latency", 0.05) as url, folder() as place:
        received_again = 0
        received: set[int] = set()
        seen_before = 0
        for moment in moments:
            start = seen_before
            worker = start_worker("potstill", url, rows, in_flight, place)
            while json.loads(urlopen(stats_url(url)).read())["answered"] < moment and worker.poll() is None:
                time.sleep(random.Random(moment).uniform(0.001, 0.02))
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            log = json.loads(urlopen(stats_url(url).replace("/stats", "/log")).read())
            received_again += sum(row in received for row in log[start:])
            received, seen_before = kept(place, url, rows), len(log)
        ask("potstill", url, rows, in_flight, place)
        log = json.loads(urlopen(stats_url(url).replace("/stats", "/log")).read())
        received_again += sum(row in received for row in log[seen_before:])
        killed, unresolved = answers(place), unresolved_in(place)
    repeats = len(log) - len(set(log))
    return {
        "said": [f"{KILLS} kills, {repeats} requests repeated, {unresolved} were in flight when it was killed"],
        "bars": [
            at_most("received replies asked for again", received_again, 0),
            at_most("repeats / in flight at the kills", repeats / max(1, unresolved), 1.0),
            at_least("output equal to the undisturbed run's", float(killed == undisturbed), 1.0),
        ],
    }


def in_flight_or(rows: int) -> int:
    """How far from start and end of the run the kills stay."""
    return min(64, rows // 8)


def kept(place: Path, url: str, rows: int) -> set[int]:
    """The rows whose replies are in the journal that a killed client has left."""
    sys.path.insert(0, str(PARTS))
    from generation_worker import request_of

    from potstill.inference import Journal
    from potstill.inference.endpoint import EndpointEngine

    identity = EndpointEngine(url, "loopback", None).identity
    with Journal(place / "journal") as journal:
        return {row for row in range(rows) if journal.reply(request_of(row).key(identity)) is not None}


def unresolved_in(place: Path) -> int:
    from potstill.inference import Journal

    with Journal(place / "journal") as journal:
        return journal.stats().unresolved


def answers(place: Path) -> list[tuple[str, str]]:
    """What the client wrote, in its order: the row and the answer."""
    return [tuple(json.loads(line)) for line in (place / "answers.jsonl").read_text().splitlines()]


@contextmanager
def server(*arguments: object) -> Iterator[str]:
    """The address of an endpoint of its own."""
    command = [sys.executable, str(PARTS / "generation_server.py"), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="potstill-benchmark-") as place:
        yield Path(place)


def start_worker(
    name: str, url: str, rows: int, in_flight: int | None, place: Path, python: Path | None = None
) -> subprocess.Popen[str]:
    options = json.dumps({"url": url, "rows": rows, "in_flight": in_flight, "folder": str(place)})
    command = [str(python or sys.executable), str(PARTS / "generation_worker.py"), name, options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ask(name: str, url: str, rows: int, in_flight: int | None, place: Path, python: Path | None = None) -> Result:
    """Let a client ask for all rows, and return what it told of it."""
    worker = start_worker(name, url, rows, in_flight, place, python)
    out, err = worker.communicate()
    if worker.returncode:
        raise SystemExit(f"{name} failed:\n{err[-3000:]}")
    told: Result = json.loads(out.splitlines()[-1])
    return told


def stats_url(url: str) -> str:
    return url.removesuffix("/v1") + "/stats"


if __name__ == "__main__":
    sys.exit(main())
