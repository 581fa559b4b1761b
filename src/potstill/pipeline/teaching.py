"""The teacher that a training asks: a network beside the student, or what it said of each answer when that was captured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.catalog import ResolvedModel
from potstill.errors import InputError
from potstill.inference import model_identity
from potstill.inference.identity import local_folder
from potstill.pipeline.stage import Context
from potstill.spec import TrainingSpec
from potstill.templates import ChatTemplate

if TYPE_CHECKING:
    from potstill.signals.header import StoreHeader
    from potstill.training.teaching import TeacherView, Teaching


@contextmanager
def teaching_of(context: Context, student: Path) -> Iterator[Teaching | None]:
    """What the student learns from beside its answers; None where these are all.

    Args:
        student: The untrained student's folder.

    Raises:
        InputError: the teacher cannot be opened, or cannot read along.
    """
    training = context.job.training
    if training.method != "kd":
        yield None
    elif training.signal.source == "live":
        yield _live(context, student)
    else:
        from potstill.signals.store import SignalStore, StoredSignals
        from potstill.training.teaching import Teaching

        view = view_of(context)
        header = header_of(training, view)
        with SignalStore(context.folder.signals / header.folder_name, header) as store:
            yield Teaching(StoredSignals(store), view, lambda key: not store.missing([key]), view.vocabulary)


def view_of(context: Context) -> TeacherView:
    """How the teacher reads rows. One behind an endpoint told its probabilities with its answers: the view is the student's.

    Raises:
        InputError: the student's tokens are not the teacher's.
    """
    from potstill.signals.keys import TextKeys
    from potstill.signals.vocabulary import require_same_vocabulary
    from potstill.training.teaching import TeacherView

    teacher, student = context.teacher_weights, context.student
    reader = student if teacher.served else teacher
    template, tokenizer = template_of(reader), _tokenizer_of(reader)
    if not teacher.served:
        require_same_vocabulary(tokenizer, _tokenizer_of(student), where="key 'training.method' of the job file")
    return TeacherView(template, tokenizer, TextKeys(model_identity(teacher), template.source))


def header_of(training: TrainingSpec, view: TeacherView) -> StoreHeader:
    """Whose signals are kept, and in which form."""
    from potstill.signals.counts import CountsEncoding
    from potstill.signals.header import StoreHeader
    from potstill.signals.top_k import TopKEncoding

    signal, temperatures = training.signal, training.temperatures
    if signal.encoding == "counts":
        return StoreHeader(view.keys, CountsEncoding(view.vocabulary, temperatures[0], signal.draws))
    return StoreHeader(view.keys, TopKEncoding(view.vocabulary, temperatures, signal.mass, signal.top))


def template_of(model: ResolvedModel) -> ChatTemplate:
    """The chat template of a model with weights."""
    if model.kind == "gguf" and model.path is not None:
        return ChatTemplate.from_gguf(model.path)
    return ChatTemplate.from_folder(local_folder(model))


def _tokenizer_of(model: ResolvedModel) -> Any:
    from potstill.quiet import quiet_transformers
    from potstill.student.gguf_reading import gguf_read_once
    from potstill.student.load import open_tokenizer

    with quiet_transformers(), gguf_read_once() if model.kind == "gguf" else nullcontext():
        return open_tokenizer(model)


def _live(context: Context, student: Path) -> Teaching:
    from potstill.signals.teacher import open_teacher
    from potstill.student.origin import kept_layers
    from potstill.training.teaching import Teaching

    view, theirs = view_of(context), ChatTemplate.from_folder(student)
    if view.template.source != theirs.source:
        raise InputError(
            "the teacher's chat template is not the student's, so it cannot read along", where="training.signal.source: live",
            found=f"{view.template.name} and {theirs.name}", expected="one template",
            hint="take source: capture, where the teacher reads each answer in its own template",
        )
    context.progress.say("opening the teacher")
    teacher, _, identity = open_teacher(context.teacher_weights)
    kept = kept_layers(student, identity)
    return Teaching(teacher, view, lambda key: True, view.vocabulary, live=teacher, kept=kept)
