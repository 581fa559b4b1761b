"""Our side of the benchmarks of training: the stages capture and train of a job whose rows are curated, as `potstill run` has
them, on a run folder of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from potstill.pipeline.capture import Capture
from potstill.pipeline.events import EventLog
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.progress import Silent
from potstill.pipeline.stage import Context
from potstill.pipeline.train import Train
from potstill.rows import Row, read_rows, write_rows
from potstill.spec import parse_job


def train(options: dict[str, Any]) -> dict[str, Any]:
    """Forward KL from a captured teacher; options as in training_worker.py. The student is the folder's student/."""
    rows = list(islice(read_rows(Path(options["rows"])), options["limit"]))
    training = {
        "method": "kd", "loss": {"forward_kl": 1.0}, "learning_rate": options["learning_rate"], "num_epochs": options["epochs"],
        "batch_size": options["batch"], "warmup_ratio": options["warmup_ratio"], "early_stopping_patience": 0,
        "precision": options.get("precision", "auto"),
    }
    models = {"teacher": {"path": options["teacher"]}, "student": {"path": options["student"]}}
    root = Path(options["out"])
    shutil.rmtree(root, ignore_errors=True)
    context = context_of(root, models, training, rows, list(read_rows(Path(options["validation"]))))
    started = time.perf_counter()
    Capture().run(context, "benchmark")
    captured = time.perf_counter()
    Train().run(context, "benchmark")
    return {
        "capture_seconds": captured - started, "train_seconds": time.perf_counter() - captured,
        "student": str(context.folder.student),
    }


def context_of(
    root: Path, models: dict[str, Any], training: dict[str, Any], rows: Sequence[Row], validation: Sequence[Row]
) -> Context:
    """A run in this folder whose rows are curated."""
    folder = RunFolder(root)
    for split, of_split in (("train", rows), ("validation", validation), ("test", ())):
        for place in (folder.rows, folder.curated):
            place.mkdir(parents=True, exist_ok=True)
            write_rows(place / f"{split}.jsonl", of_split)
    data = {"train": str(folder.curated / "train.jsonl")}
    given = {"task": "text", **models, "data": data, "training": training}
    job = parse_job(given, source="benchmark", folder=root, default_name="benchmark")
    return Context(job, folder, EventLog(folder.events), Silent())
