"""Is learning from a teacher's distributions fast, close to what the machine can multiply, and frugal with memory?

The embedded model is the teacher, eight of its layers are the student, both as float32 folders; the rows are real prompts with
the teacher's own answers (benchmarks/parts/training_data.py). Everybody minimises the forward KL divergence over the whole
vocabulary on the same rows, as often, in batches as large, with the same learning rate and cosine. Arms, each client in a
process of its own (benchmarks/parts/training_worker.py):

    speed      three epochs of 160 rows, 8 a batch: answer tokens learned a second, from the call that trains to the trained
               student in its folder. Ours captures the teacher's signals, validates and writes checkpoints within that time;
               peers have loaded their models before it. Their settings are their fastest: see below.
    distance   what our training of that arm has to multiply (6 operations a weight of the layers and token, 6 a weight of the
               head and answer token) at the rate of plain products of the layers' shapes, over the time it takes, its loading,
               validation and checkpoints included. The rate of a machine moves within minutes: it is the mean of just before
               and just after. In float32, in which all of a training computes; and told without a bar, since only products get
               faster there, in bfloat16 where the processor multiplies it natively, beside products in bfloat16
    memory     the peak above weights, gradients and AdamW's moments, at 2,048 tokens a step

Peers: the GKD trainer of TRL 1.16 (off-policy: lmbda 0, beta 0), in bfloat16 as by default or in float32, as a trial of a few
steps says, and in float32 where the processor does not multiply bfloat16 natively; recomputing activations, which is its
default and costs time, is turned off for speed, and memory is compared with the more frugal of both. distill-anything 0.5 in
logit mode, which on a CPU computes in float32. They live in environments of their own, built under --peers when they are first
needed. Every finished client is kept in --results with the students, and the same command goes on with the next. How close each
student came to the teacher on held-out rows is printed, so that nobody is fast by learning less. The machine should have
nothing else to do; two CPU cores take half an hour to an hour, the answers that the teacher writes first included.

    python benchmarks/training.py [--arm speed] [--rows N] [--results FOLDER] [--peers FOLDER]
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from parts.arms import Bar, at_least, at_most, peer_python, show_bars
from potstill.student.processor import multiplies_bfloat16

PARTS = Path(__file__).resolve().parent / "parts"
COMMON = ("torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0")
PACKAGES = {
    "trl": (*COMMON, "trl==1.16.0", "datasets==5.2.0"),
    "distill-anything": (*COMMON, "distill-anything==0.5.0"),
}
ARMS = ("speed", "distance", "memory")
ROWS, HELD_OUT, VALIDATION, BATCH, EPOCHS, LEARNING_RATE, WARMUP = 160, 40, 8, 8, 3, 5e-4, 0.05
TRIAL_ROWS = 32
STEP_TOKENS, MEMORY_STEPS = 2048, 4
WEIGHT_BYTES, TRAINED_WEIGHT_BYTES = 4, 16  # in float32, the latter with its gradient and two moments
Told = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--arm", choices=ARMS)
    parser.add_argument("--rows", type=int, default=ROWS, help="fewer, to see that it runs")
    parser.add_argument("--results", type=Path, default=Path("runs/benchmark-training"))
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "potstill-benchmarks")
    options = parser.parse_args()
    bench = Bench(options.results.resolve(), options.peers, options.rows)
    arms = {"speed": bench.speed, "distance": bench.distance, "memory": bench.memory}
    held = True
    for name, arm in arms.items():
        if options.arm in (None, name):
            print(f"{name}, {options.rows} rows", flush=True)
            bars = arm()
            show_bars(bars)
            held = held and all(bar["holds"] for bar in bars)
    print("holds" if held else "DOES NOT HOLD")
    return 0 if held else 1


class Bench:
    """Clients and what they told, which is kept in a folder."""

    def __init__(self, folder: Path, peers: Path, rows: int) -> None:
        self._folder, self._peers, self._rows = folder, peers, rows
        self._store = folder / "results.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._data = self._run("data", Path(sys.executable), "training_data.py", [
            str(folder / "data"), str(rows), str(VALIDATION), str(HELD_OUT)
        ])

    def speed(self) -> list[Bar]:
        trl = self._fastest_trl()
        clients: dict[str, Told] = {"potstill": {}, f"trl {trl}": TRL[trl], "distill-anything": {}}
        rates = {}
        for name, extra in clients.items():
            told = self._train(name, extra)
            rates[name] = self._data["answer_tokens"] * EPOCHS / told["seconds"]
            found = self._client(f"{name}, judged", "loss", {
                "teacher": self._data["teacher"], "student": told["student"], "rows": self._data["test"], "of": told["seconds"],
            })
            print(f"  {name:<17}{rates[name]:7.1f} answer tokens/s  {told['seconds']:6.1f} s, then {found['nats']:.3f} nats "
                  f"and {found['agreement']:.3f} agreement on held-out answers", flush=True)
        ours = rates.pop("potstill")
        return [at_least("potstill / the faster peer", ours / max(rates.values()), 2.5)]

    def distance(self) -> list[Bar]:
        data = self._data
        trunk, head = (6 * EPOCHS * data[f"student_{part}_weights"] * data[tokens]
                       for part, tokens in (("trunk", "tokens"), ("head", "answer_tokens")))
        bars = []
        for precision in ("float32", "bfloat16") if multiplies_bfloat16() else ("float32",):
            rates = [self._products_per_s(precision, "before")]
            seconds = self._train(f"potstill {precision}", {"precision": precision})["train_seconds"]
            rates.append(self._products_per_s(precision, "after"))
            share = (trunk + head) / (sum(rates) / 2) / seconds
            print(f"  {precision}: plain products at {rates[0] / 1e9:.0f} thousand million operations a second before and "
                  f"{rates[1] / 1e9:.0f} after, training {seconds:.1f} s: {share:.3f} of that rate", flush=True)
            if precision == "float32":
                bars.append(at_least("work / rate of products in float32 / time", share, 0.6))
        return bars

    def _products_per_s(self, precision: str, when: str) -> float:
        """Operations a second of plain products of the layers' shapes, at the tokens of a mean batch."""
        options = {"student": self._data["student"], "tokens": self._data["tokens"] * BATCH // self._rows, "format": precision}
        return float(self._client(f"products {when} {precision}", "products", options)["per_s"])

    def memory(self) -> list[Bar]:
        rows_a_step = min(self._rows, round(STEP_TOKENS * self._rows / self._data["tokens"]))
        steps = min(MEMORY_STEPS, self._rows // rows_a_step)
        size = {"batch": rows_a_step, "epochs": 1, "limit": steps * rows_a_step}
        trl = self._fastest_trl()
        clients: dict[str, Told] = {
            "potstill": {}, f"trl {trl}": TRL[trl], f"trl {trl}, recomputing": {**TRL[trl], "recompute": True}
        }
        above = {}
        for name, extra in clients.items():
            told = self._train(name, {**size, **extra}, f"{name}, {STEP_TOKENS} tokens a step")
            above[name] = told["peak_mb"] - told["imported_mb"] - self._needed_mb(beside_teacher=name != "potstill")
            print(f"  {name:<27}{above[name]:7.0f} MB above weights, gradients and moments", flush=True)
        ours = above.pop("potstill")
        return [at_most("potstill / the more frugal trl", ours / min(above.values()), 0.4)]

    def _needed_mb(self, *, beside_teacher: bool) -> float:
        """Weights, gradients and moments of the student, and the weights of a teacher that is there while it learns."""
        teacher = WEIGHT_BYTES * self._data["teacher_weights"] if beside_teacher else 0
        return float(teacher + TRAINED_WEIGHT_BYTES * self._data["student_weights"]) / 2**20

    def _fastest_trl(self) -> str:
        """The number format in which TRL's trainer is faster here; bfloat16 only where the processor multiplies it."""
        if not multiplies_bfloat16():
            return "float32"
        size = {"epochs": 1, "limit": min(TRIAL_ROWS, self._rows)}
        seconds = {name: self._train(f"trl {name}", {**size, **extra}, f"trial of trl {name}")["seconds"]
                   for name, extra in TRL.items()}
        return min(seconds, key=seconds.__getitem__)

    def _train(self, client: str, extra: Told, title: str | None = None) -> Told:
        """Train with a client; what it told, and where its student lies."""
        name = title or client
        out = self._folder / "students" / name.replace(" ", "-").replace(",", "")
        limit = extra.get("limit", self._rows)
        rows = self._data["train"]
        epochs, batch = extra.get("epochs", EPOCHS), extra.get("batch", BATCH)
        options = {
            "rows": rows, "limit": limit, "validation": self._data["validation"], "teacher": self._data["teacher"],
            "student": self._data["student"], "out": str(out), "batch": batch, "epochs": epochs,
            "learning_rate": LEARNING_RATE, "warmup_ratio": WARMUP,
            "warmup_steps": round(WARMUP * epochs * math.ceil(limit / batch)), **extra,
        }
        return self._client(name, client.partition(" ")[0], options)

    def _client(self, title: str, who: str, options: Told) -> Told:
        """What a client told, now or before."""
        done: dict[str, Any] = json.loads(self._store.read_text()) if self._store.exists() else {}
        title = f"{title}, {self._rows} rows"
        if done.get(title, {}).get("options") != options:
            python = peer_python(who, self._peers, PACKAGES[who]) if who in PACKAGES else Path(sys.executable)
            told = self._run(title, python, "training_worker.py", [who, json.dumps(options)])
            done[title] = {"options": options, "told": told}
            draft = self._store.with_suffix(".draft")
            draft.write_text(json.dumps(done, indent=2))
            draft.replace(self._store)
        return dict(done[title]["told"])

    def _run(self, title: str, python: Path, script: str, arguments: list[str]) -> Told:
        """Run one part and return its last line."""
        log = self._folder / "log" / f"{title.replace(' ', '-').replace(',', '')}.txt"
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as errors:
            command = [str(python), str(PARTS / script), *arguments]
            result = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"{title} failed:\n{log.read_text()[-3000:]}")
        told: Told = json.loads(result.stdout.splitlines()[-1])
        return told


TRL: dict[str, Told] = {
    "bfloat16": {"bf16": True, "recompute": False},
    "float32": {"bf16": False, "recompute": False},
}


if __name__ == "__main__":
    sys.exit(main())
