"""A teacher in this process answers rows: where it can, it is held to the task's closed set of answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.catalog.model import ResolvedModel
from potstill.generation import Direct, OneTeacher, Outcome, RejectedRow, Teacher, generate_answers
from potstill.inference import Client, Journal, open_engine
from potstill.inference.protocol import Sampling
from potstill.tasks import get_task

pytest.importorskip("xllamacpp")


async def test_a_label_task_gets_nothing_but_labels(tmp_path: Path, embedded_gguf: Path) -> None:
    # Left to itself, this small model explains at length what an owl is.
    task = get_task("classification", ("fish_or_crab", "owl_or_other_bird"))
    rows = [task.row({"text": text}) for text in ("What is an owl?", "Tell me about herrings.")]
    found: dict[int, Outcome] = {}
    engine = open_engine(ResolvedModel("teacher", "gguf", path=embedded_gguf), concurrency=1, context=512, threads=1)
    try:
        with Journal(tmp_path) as journal:
            client = Client(engine, journal, concurrency=1)
            strategy = OneTeacher(Teacher("teacher", client, Sampling(temperature=0.7)))
            await generate_answers(rows, Direct(task), strategy, concurrency=1, on_row=found.__setitem__)
    finally:
        await engine.aclose()
    said = [outcome[0].messages[-1].content for outcome in found.values() if not isinstance(outcome, RejectedRow)]
    assert len(said) == 2
    assert set(said) <= set(task.labels)
