"""The teacher that a training asks: a network beside the student, or what it said of each answer when that was captured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.catalog import ResolvedModel
from potstill.errors import InputError
from potstill.inference import model_identity
from potstill.inference.identity import local_folder
from potstill.pipeline.stage import Context
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
        with ExitStack() as opened:
            yield _captured(context, student, opened)


def _captured(context: Context, student: Path, opened: ExitStack) -> Teaching:
    from potstill.signals.store import SignalStore, StoredSignals
    from potstill.signals.stored_layers import StoredLayers
    from potstill.student.origin import kept_layers
    from potstill.training.teaching import Teaching

    def open_store(header: StoreHeader) -> SignalStore:
        return opened.enter_context(SignalStore(context.folder.signals / header.folder_name, header))

    training, view = context.job.training, view_of(context)
    stores = [open_store(header_of(context, view))]
    layers = kept = None
    if training.captures_layers:
        stores.append(open_store(layers_header_of(context, view, student)))
        layers = StoredLayers(stores[-1], _teachers_layers(context)[0])
        kept = kept_layers(student, model_identity(context.teacher_weights))

    def knows(key: str) -> bool:
        return not any(store.missing([key]) for store in stores)

    return Teaching(StoredSignals(stores[0]), view, knows, view.vocabulary, layers, kept)


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


def header_of(context: Context, view: TeacherView) -> StoreHeader:
    """Whose signals are kept, and in which form. What was told by an endpoint is without draws."""
    from potstill.signals.counts import CountsEncoding
    from potstill.signals.header import StoreHeader
    from potstill.signals.top_k import TopKEncoding

    signal, temperatures = context.job.training.signal, context.job.training.temperatures
    if signal.encoding == "counts":
        return StoreHeader(view.keys, CountsEncoding(view.vocabulary, temperatures[0], signal.draws))
    draws = 0 if context.teacher_weights.served else signal.draws
    return StoreHeader(view.keys, TopKEncoding(view.vocabulary, temperatures, signal.mass, signal.top, draws))


def layers_header_of(context: Context, view: TeacherView, student: Path) -> StoreHeader:
    """The teacher's layers whose hidden states this student is compared with."""
    from potstill.evaluation.model_size import count_layers
    from potstill.signals.header import StoreHeader
    from potstill.signals.hidden import HiddenEncoding
    from potstill.student.origin import kept_layers
    from potstill.training.losses.transfer import layer_map

    count, width = _teachers_layers(context)
    ours = count_layers(ResolvedModel("student", "folder", path=student)) or 0
    pairs = layer_map(ours, count, kept_layers(student, model_identity(context.teacher_weights)))
    return StoreHeader(view.keys, HiddenEncoding(tuple(theirs for _, theirs in pairs), width))


def _teachers_layers(context: Context) -> tuple[int, int]:
    """How many there are, and how wide what they hand on.

    Raises:
        InputError: the model's files do not tell.
    """
    from potstill.evaluation.model_size import count_layers, hidden_width

    model = context.teacher_weights
    files = model if model.kind == "gguf" else ResolvedModel(model.name, "folder", path=local_folder(model))
    count, width = count_layers(files), hidden_width(files)
    if count is None or width is None:
        raise InputError(
            "the teacher does not tell its layers, so their hidden states cannot be kept", where=str(files.path),
            expected="num_hidden_layers and hidden_size in config.json", hint="take signal: {source: live}",
        )
    return count, width


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
    return Teaching(teacher, view, lambda key: True, view.vocabulary, teacher, kept)
