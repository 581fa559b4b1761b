"""The judge: its key or its files, and whether it would judge itself."""

from __future__ import annotations

from collections.abc import Iterator

from potstill.catalog import ResolvedModel
from potstill.errors import InputError
from potstill.inference import model_identity
from potstill.pipeline.checks.models import look_at_model
from potstill.pipeline.checks.seen import Seen, Told, as_files
from potstill.pipeline.checks.teacher import ask_once


def look_at_judge(seen: Seen) -> Iterator[Told]:
    """Whether it can be opened, and is neither teacher nor student: a model favours its own answers."""
    spec, judge = seen.job.evaluation.judge, seen.judge
    if spec is None or judge is None:
        return
    for part, model in (*(("teacher", teacher) for teacher in seen.teachers), ("student", seen.student)):
        if not spec.allow_self and is_same_model(judge, model):
            raise InputError(
                "a model would judge its own answers", found=f"the judge is the {part}, {model.name}",
                expected="another model than teacher and student",
                hint="evaluation.judge.allow_self: true allows it; it favours what it wrote itself",
            )
    yield from look_at_model(judge)


def look_at_judges_endpoint(seen: Seen) -> Iterator[Told]:
    """Ask it one short question."""
    if seen.judge is not None and seen.judge.kind == "endpoint":
        yield f"answered in {ask_once(seen.judge).latency_s:.2f} s"


def is_same_model(one: ResolvedModel, other: ResolvedModel) -> bool:
    """Whether two names lead to the same model by content: the same address and name, or files that are the same."""
    if "endpoint" in (one.kind, other.kind):
        return one.kind == other.kind and model_identity(one) == model_identity(other)
    if one.kind == other.kind == "hub":
        return one.model == other.model
    files = [as_files(one), as_files(other)]
    return None not in files and len({str(model_identity(found)) for found in files if found is not None}) == 1
