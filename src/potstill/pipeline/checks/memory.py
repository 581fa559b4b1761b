"""Whether what is trained fits into memory: the student, and a teacher that is corrected or read along with."""

from __future__ import annotations

from collections.abc import Iterator

from potstill.catalog import ResolvedModel
from potstill.errors import CorruptFileError, MachineError
from potstill.pipeline.checks.seen import Seen, Told, as_files
from potstill.pipeline.corrected import check_correctable
from potstill.pipeline.gold import check_gold, gold_of

_TRAINING_BYTES_PER_PARAMETER = 16  # float32 weight, gradient and the two moments of AdamW
_BYTES_WITH_ADAPTER = 4 + 2
_BYTES_READ = 4


def look_at_memory(seen: Seen) -> Iterator[Told]:
    """Whether the student fits into memory when it is trained."""
    if not seen.trains:
        return
    spec = seen.job.student
    hint = "take a smaller student, student.shrink, or student.adapter: {type: lora}"
    told = _to_train("student", seen.student_files, hint, adapter=spec.adapter is not None)
    if isinstance(told, MachineError) and spec.shrink is not None:
        told = "unknown until layers are dropped"
    if told is not None:
        yield told
    yield from _to_read_along(seen)


def _to_read_along(seen: Seen) -> Iterator[Told]:
    """Whether a teacher of weights can be opened to tell what it holds possible: before the training, or beside it."""
    if seen.job.training.method != "kd" or seen.teacher.served:
        return
    hint = "training.method: sft learns from its answers alone, which takes less"
    told = _fits("teacher", as_files(seen.teacher), hint, _BYTES_READ, "read along with")
    if told is not None:
        yield told


def look_at_correction(seen: Seen) -> Iterator[Told]:
    """Whether the teacher can be tuned, by how many gold answers, and whether it fits into memory then."""
    if not seen.corrects or seen.job.correction is None:
        return
    teacher, thought = check_correctable(seen.teacher), seen.job.generation.chain_of_thought
    gold = {split: gold_of(seen.splits[split], seen.task, chain_of_thought=thought) for split in ("train", "validation")}
    check_gold(gold)
    counts = [len(gold[split].rows) for split in ("train", "validation")]
    yield f"{counts[0]} gold rows to learn from, {counts[1]} to choose the epoch by; nothing to pay, the teacher is tuned here"
    hint = "take a smaller teacher, or teacher.correct: {adapter: {type: lora}}"
    told = _to_train("teacher", as_files(teacher), hint, adapter=seen.job.correction.adapter is not None)
    if told is not None:
        yield told


def _to_train(role: str, model: ResolvedModel | None, hint: str, *, adapter: bool) -> Told | None:
    """What a training takes, or that it is too much; None where the files cannot be read, which another look says."""
    return _fits(role, model, hint, _BYTES_WITH_ADAPTER if adapter else _TRAINING_BYTES_PER_PARAMETER, "train")


def _fits(role: str, model: ResolvedModel | None, hint: str, bytes_per_parameter: int, use: str) -> Told | None:
    import psutil

    from potstill.evaluation.model_size import count_parameters

    try:
        parameters = count_parameters(model) if model is not None else None
    except CorruptFileError:
        return None
    if parameters is None:
        return f"unknown until the {role} is downloaded" if model is None else "unknown: its weights are packed"
    needed = parameters * bytes_per_parameter
    available = int(psutil.virtual_memory().available)
    if needed > available:
        purpose = "for training" if use == "train" else "with all its weights"
        return MachineError(
            f"the {role} does not fit into memory {purpose}", found=f"{available / 1e9:.1f} GB available",
            expected=f"about {needed / 1e9:.1f} GB for {parameters / 1e6:.0f} million parameters", hint=hint,
        )
    return f"about {needed / 1e9:.1f} GB to {use} {parameters / 1e6:.0f} million parameters, {available / 1e9:.1f} GB available"
