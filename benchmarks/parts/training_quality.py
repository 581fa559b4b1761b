"""One training of benchmarks/quality.py and how close its student came to the teacher, in a process of its own:
`training_quality.py OPTIONS-AS-JSON`. The last line it prints is JSON. A training that was killed goes on."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import orjson
from training_judge import judged
from training_ours import context_of

from potstill.pipeline.capture import Capture
from potstill.pipeline.train import Train
from potstill.rows import read_rows


def finished(options: dict[str, Any]) -> dict[str, Any]:
    """Train and judge; only the figures stay, and the signals, which all trainings of this teacher share."""
    rows, validation, test = (list(read_rows(Path(options[split]))) for split in ("train", "validation", "test"))
    root, training = Path(options["out"]), options["training"]
    models = {"teacher": {"path": options["teacher"]}, "student": {"path": options["student"]}}
    context = context_of(root, models, training, rows, validation)
    if training["method"] == "kd" and context.job.training.signal.source == "capture":
        shared = Path(options["signals"])
        shared.mkdir(exist_ok=True)
        if not context.folder.signals.exists():
            context.folder.signals.symlink_to(shared)
        Capture().run(context, "benchmark")
    Train().run(context, "benchmark")
    result = orjson.loads((context.folder.student / "training.json").read_bytes())
    found = judged(Path(options["teacher"]), context.folder.student, test)
    told = {"validation_nats": result["best_validation_loss"], "epoch": result["best_epoch"], **found}
    shutil.rmtree(root)
    return told


if __name__ == "__main__":
    print(json.dumps(finished(json.loads(sys.argv[1]))), flush=True)
