"""Whether the teacher's probabilities can be had, and whether the student can learn from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from potstill.catalog import ResolvedModel
from potstill.errors import InputError
from potstill.gguf_metadata import read_metadata
from potstill.pipeline.checks.seen import Seen, Told, as_files
from potstill.signals.caps import cap_of, not_linear
from potstill.spec import TrainingSpec

_PLACE = "key 'training.method' of the job file"
_OR_ANSWERS = "or training.method: sft, which learns from the answers alone"


def look_at_signals(seen: Seen) -> Iterator[Told]:
    """One teacher, whose tokens are the student's, or which tells its probabilities with its answers."""
    training = seen.job.training
    if training.method != "kd":
        return
    if len(seen.teachers) > 1:
        raise InputError(
            "the student can follow the probabilities of one teacher", where=_PLACE,
            found=f"kd, and {len(seen.teachers)} teachers", expected="one teacher", hint=_OR_ANSWERS,
        )
    if seen.teacher.served:
        yield _told(seen.teacher, training)
        return
    if (capped := _cap(seen.teacher)) is not None:
        raise not_linear(capped)
    yield _vocabularies(seen.teacher, seen.student)
    if training.captures_layers:
        yield _room(seen)


def _room(seen: Seen) -> Told:
    """What the teacher's hidden states take on the disk, if every answer is as long as it may be."""
    from potstill.evaluation.model_size import count_layers, hidden_width

    teacher, shrink = as_files(seen.teacher), seen.job.student.shrink
    counts = [None if files is None else count_layers(files) for files in (teacher, seen.student_files)]
    theirs, ours = counts[0], shrink.layers if shrink else counts[1]
    width = None if teacher is None else hidden_width(teacher)
    if theirs is None or ours is None or width is None or find_spec("torch") is None:
        return "unknown until both models are here how much room the hidden states take"
    from potstill.signals.hidden import HiddenEncoding

    size = HiddenEncoding(tuple(range(min(theirs, ours))), width).position_bytes
    generation = seen.job.generation
    rows = max(len(seen.splits["train"]), generation.prompts.wanted if generation.mode == "prompts" else 0)
    tokens = (rows + len(seen.splits["validation"])) * generation.max_tokens
    return f"hidden states: {size / 1e3:.1f} kB an answer token, at most {size * tokens / 1e6:,.0f} MB on the disk"


def _told(teacher: ResolvedModel, training: TrainingSpec) -> Told:
    """What comes with the answers: the likeliest tokens at temperature 1."""
    if teacher.engine == "anthropic" or teacher.batch:
        how = "Anthropic's protocol" if teacher.engine == "anthropic" else "batches"
        return InputError(
            "the teacher's probabilities cannot be had", where=_PLACE, found=f"{teacher.name}, asked by {how}",
            expected="a teacher with weights on this machine, or an OpenAI-style endpoint that tells them", hint=_OR_ANSWERS,
        )
    if training.signal.source == "live":
        return InputError(
            "a teacher behind an endpoint cannot stand beside the student", found=teacher.name, expected="source: capture",
            where="key 'training.signal.source' of the job file",
        )
    if "hidden" in training.loss:
        return InputError(
            "an endpoint tells nothing of the teacher's layers", where="key 'training.loss' of the job file", found="hidden",
            expected="losses on its probabilities alone, or a teacher with weights on this machine",
        )
    if training.signal.encoding == "counts":
        return InputError(
            "an endpoint tells its likeliest tokens, not draws", where="key 'training.signal.encoding' of the job file",
            found="counts", expected="top_k",
        )
    if training.signal.draws not in (0, type(training.signal).model_fields["draws"].default):
        return InputError(
            "an endpoint tells its likeliest tokens, and none is drawn from the others", found=training.signal.draws,
            where="key 'training.signal.draws' of the job file", expected="0, or no such key",
        )
    if training.temperatures != (1.0,):
        return InputError(
            "an endpoint's probabilities are of temperature 1: those of the tokens it leaves out cannot be tempered",
            where="key 'training.temperature' of the job file", found=", ".join(map(str, training.temperatures)),
            expected="1.0",
        )
    return f"{teacher.name} is asked for the probabilities of its answers' tokens, which have to be the student's tokens"


def _cap(teacher: ResolvedModel) -> str | None:
    """The cap on its logits, as its files tell it."""
    files = as_files(teacher)
    if files is None or files.path is None:
        return None
    if files.kind == "gguf":
        family = read_metadata(files.path, {"general.architecture"}).get("general.architecture")
        found = read_metadata(files.path, {f"{family}.final_logit_softcapping"})
        return cap_of({key.rpartition(".")[2]: value for key, value in found.items()})
    path = files.path / "config.json"
    return cap_of(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _vocabularies(teacher: ResolvedModel, student: ResolvedModel) -> Told:
    """Whether both split text into the same tokens under the same numbers."""
    files = [as_files(model) for model in (teacher, student)]
    if None in files or find_spec("transformers") is None:
        return "unknown until both models are here whether their tokens are the same"
    from potstill.quiet import quiet_transformers
    from potstill.signals.vocabulary import same_vocabulary

    with quiet_transformers():
        theirs, ours = (_tokenizer(model) for model in files if model is not None)
    difference = same_vocabulary(theirs, ours)
    if difference is None:
        return "teacher and student have the same tokens"
    return InputError(
        "teacher and student split text into different tokens", where=_PLACE, found=difference,
        expected="two models of one family", hint=_OR_ANSWERS,
    )


def _tokenizer(model: ResolvedModel) -> Any:
    from potstill.student.load import open_tokenizer

    try:
        return open_tokenizer(model)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise InputError(
            "a tokenizer cannot be opened", where=model.name, found=str(error).strip().partition("\n")[0],
            expected="a model folder or a .gguf file with its tokenizer",
        ) from error
