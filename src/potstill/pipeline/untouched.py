"""The untouched student: what training starts from, and what the trained one is compared with.

A model's own folder serves as it is. One that is shrunk, or comes from elsewhere, is built once, in initial/: another student,
another depth or other rows to choose the layers by build it anew, other settings of the training do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from potstill.catalog import ResolvedModel
from potstill.inference import model_identity
from potstill.pipeline.folder import claim
from potstill.pipeline.stage import Context
from potstill.rows import Row, content_hash, read_rows
from potstill.spec import ShrinkSpec
from potstill.student import build_student
from potstill.templates import ChatTemplate

CALIBRATION_ROWS = 64


def initial_student(context: Context) -> Path:
    """The untouched student as a folder in the hub's layout; built once where it is not one already."""
    model, shrink = context.student, context.job.student.shrink
    if model.kind == "folder" and shrink is None and model.path is not None:
        return model.path
    target, rows = context.folder.initial_student, context.folder.curated / "train.jsonl"
    claim(target.parent, content_hash({
        "student": dict(model_identity(model)), "shrink": shrink.model_dump() if shrink else None,
        "rows": context.digests(rows) if shrink else None,
    }))
    if not (target / "config.json").is_file():
        context.progress.say("building the student")
        build_initial_student(model, target, shrink, read_rows(rows))
    return target


def build_initial_student(model: ResolvedModel, target: Path, shrink: ShrinkSpec | None, rows: Iterable[Row]) -> None:
    """Write the untouched student to `target`; the first of the rows, as its template renders them, guide the shrinking."""
    texts = []
    if model.path is not None:
        template = ChatTemplate.from_gguf(model.path) if model.kind == "gguf" else ChatTemplate.from_folder(model.path)
        texts = [template.render(row.messages, add_generation_prompt=False) for row in islice(rows, CALIBRATION_ROWS)]
    build_student(model, target, shrink=shrink, calibration=texts)
