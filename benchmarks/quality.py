"""What do a teacher's distributions teach beyond its text?

The embedded model is the teacher, eight of its layers are the student; 700 rows of real prompts with the teacher's own answers,
100 to choose by, 150 to judge on (benchmarks/parts/training_data.py). Ways to learn:

    plain       cross-entropy on the answers
    forward_kl  the forward KL divergence from captured distributions, their likeliest tokens
    layers      forward KL, and the hidden states and attention of the teacher's layers, which runs beside the student
    jsd         the Jensen-Shannon divergence
    mix         forward KL and cross-entropy, 0.7 to 0.3
    dense       forward KL from the whole distribution of a teacher that runs beside the student
    counts      forward KL from captured draws

Each is trained at three learning rates with one seed, and with the two other seeds at the rate whose best epoch has the lowest
validation loss; dense and counts at the rate of forward_kl alone. Always the best epoch's weights are judged, by cross-entropy
on the held-out answers in nats a token and by agreement, the share of places where the student's first choice is the teacher's.
Printed are means over the seeds, and whether forward KL is at least 0.1 nats below plain and higher in agreement, by more than
the seeds spread, and no more than 0.02 nats above the student that learnt from the whole distribution. What layers add shows
beside dense: both have the teacher beside the student. Every finished training is kept in --results; the same command goes on,
within a training from its last checkpoint. Two CPU cores take two to three hours.

    python benchmarks/quality.py [--arm forward_kl] [--rows 700] [--epochs 3] [--results FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from parts.arms import Bar, at_least, at_most, show_bars

PARTS = Path(__file__).resolve().parent / "parts"
LIVE = {"signal": {"source": "live"}}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"method": "sft"},
    "forward_kl": {"method": "kd", "loss": {"forward_kl": 1.0}},
    "layers": {"method": "kd", "loss": {"forward_kl": 1.0, "hidden": 0.1, "attention": 0.1}, **LIVE},
    "jsd": {"method": "kd", "loss": {"jsd": 1.0}},
    "mix": {"method": "kd", "loss": {"forward_kl": 0.7, "ce": 0.3}},
    "dense": {"method": "kd", "loss": {"forward_kl": 1.0}, **LIVE},
    "counts": {"method": "kd", "loss": {"forward_kl": 1.0}, "signal": {"encoding": "counts"}},
}
AT_THE_RATE_OF = {"dense": "forward_kl", "counts": "forward_kl"}
RATES, SEEDS = (2e-4, 5e-4, 1e-3), (0, 1, 2)
ROWS, VALIDATION, TEST, EPOCHS, BATCH = 700, 100, 150, 3, 8
NATS_BELOW, NATS_OF_THE_STORE = 0.1, 0.02
Told = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--arm", choices=tuple(WAYS))
    parser.add_argument("--rows", type=int, default=ROWS, help="fewer, to see that it runs")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--results", type=Path, default=Path("runs/benchmark-quality"))
    options = parser.parse_args()
    trainings = Trainings(options.results.resolve(), options.rows, options.epochs)
    found = {name: of_way(trainings, name) for name in WAYS if options.arm in (None, name)}
    bars = compared(found)
    show_bars(bars)
    held = all(bar["holds"] for bar in bars)
    print("holds" if held else "DOES NOT HOLD")
    return 0 if held else 1


def of_way(trainings: Trainings, name: str) -> list[Told]:
    """The trainings of one way at its best learning rate, one a seed."""
    best = best_rate(trainings, AT_THE_RATE_OF.get(name, name))
    of_seeds = [trainings.finished(name, best, seed) for seed in SEEDS]
    (nats, nats_spread), (agreement, agreement_spread) = of(of_seeds, "nats"), of(of_seeds, "agreement")
    print(f"{name:<11} rate {best:.0e}  {nats:.3f} nats (spread {nats_spread:.3f})  "
          f"{agreement:.4f} agreement (spread {agreement_spread:.4f})", flush=True)
    return of_seeds


def best_rate(trainings: Trainings, name: str) -> float:
    """The learning rate whose best epoch has the lowest validation loss."""
    sweep = {rate: trainings.finished(name, rate, SEEDS[0]) for rate in RATES}
    for rate, told in sweep.items():
        print(f"  {name:<11} rate {rate:.0e}  validation {told['validation_nats']:.3f} nats after epoch {told['epoch']:g}, "
              f"held-out {told['nats']:.3f}", flush=True)
    return min(sweep, key=lambda rate: float(sweep[rate]["validation_nats"]))


def of(trainings: list[Told], figure: str) -> tuple[float, float]:
    """Mean of a figure over the seeds, and how far the largest is from the smallest."""
    values = [told[figure] for told in trainings]
    return sum(values) / len(values), max(values) - min(values)


def compared(found: dict[str, list[Told]]) -> list[Bar]:
    """What of the bars can be said of the ways that were run: a gain has to be larger than both spreads."""
    bars: list[Bar] = []
    if {"plain", "forward_kl"} <= found.keys():
        plain, forward_kl = found["plain"], found["forward_kl"]
        nats = of(plain, "nats")[0] - of(forward_kl, "nats")[0]
        agreement = of(forward_kl, "agreement")[0] - of(plain, "agreement")[0]
        spread = {figure: max(of(one, figure)[1] for one in (plain, forward_kl)) for figure in ("nats", "agreement")}
        bars += [
            at_least("nats that forward KL is below plain", nats, NATS_BELOW),
            at_least("the same / the larger spread", nats / max(spread["nats"], 1e-9), 1.0),
            at_least("gain in agreement / the larger spread", agreement / max(spread["agreement"], 1e-9), 1.0),
        ]
    for name in ("forward_kl", "counts"):
        if {name, "dense"} <= found.keys():
            above = of(found[name], "nats")[0] - of(found["dense"], "nats")[0]
            bars.append(at_most(f"nats that {name} from the store is above dense", above, NATS_OF_THE_STORE))
    return bars


class Trainings:
    """Trainings and what they came to, which is kept in a folder."""

    def __init__(self, folder: Path, rows: int, epochs: int) -> None:
        self._folder, self._rows, self._epochs = folder, rows, epochs
        folder.mkdir(parents=True, exist_ok=True)
        scale = min(1.0, rows / ROWS)
        held_out = [str(max(8, round(count * scale))) for count in (VALIDATION, TEST)]
        self._data = run("training_data.py", [str(folder / "data"), str(rows), *held_out])

    def finished(self, name: str, rate: float, seed: int) -> Told:
        """One training and its judgement, now or before."""
        title = f"{name}-{rate:g}-{seed}-{self._rows}-{self._epochs}"
        place, stored = self._folder / title, self._folder / f"{title}.json"
        if not stored.exists():
            training = {
                **WAYS[name], "learning_rate": rate, "num_epochs": self._epochs, "batch_size": BATCH, "seed": seed,
                "early_stopping_patience": 2,
            }
            options = {**self._data, "training": training, "out": str(place), "signals": str(self._folder / "signals")}
            told = run("training_quality.py", [json.dumps(options)])
            draft = self._folder / f"{title}.draft"
            draft.write_text(json.dumps({"training": training, **told}, indent=2))
            draft.replace(stored)
        return dict(json.loads(stored.read_text()))


def run(script: str, arguments: list[str]) -> Told:
    """Run one part and return its last line."""
    result = subprocess.run([sys.executable, str(PARTS / script), *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{script} failed")
    told: Told = json.loads(result.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    sys.exit(main())
