"""Stage between curate and train, capture: the teacher reads the kept answers, and what it holds possible at them is kept.

In: curated/ and the teacher. Jobs have this stage whose training compares distributions, unless the teacher runs beside the
student. Out: a store under signals/, for all epochs and all students; texts that it holds are not read again. Where the loss
compares hidden states they have a store of their own: of which layers follows from the untouched student. Cost: one pass of the
teacher over each text, for both. A teacher behind an endpoint told its probabilities with its answers, which costs no more; one
that vLLM or SGLang serves is asked about texts that it did not write so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.inference import model_identity
from potstill.pipeline.lessons import lessons_of
from potstill.pipeline.stage import Context
from potstill.pipeline.teaching import header_of, layers_header_of, view_of
from potstill.pipeline.told import keep_told
from potstill.pipeline.untouched import initial_student

if TYPE_CHECKING:
    from potstill.signals.capture import CaptureProgress
    from potstill.signals.store import SignalStore
    from potstill.training.teaching import TeacherView


class Capture:
    """Keeps what the teacher holds possible."""

    name = "capture"
    version = 2

    def inputs(self, context: Context) -> Mapping[str, Any]:
        training, shrink = context.job.training, context.job.student.shrink
        return {
            "curated": context.digests(context.folder.curated / "train.jsonl", context.folder.curated / "validation.jsonl"),
            "teacher": dict(model_identity(context.teacher_weights)),
            "student": dict(model_identity(context.student)),  # its tokens have to be the teacher's
            "signal": training.signal.model_dump(mode="json"),
            "temperatures": training.temperatures,
            "rationale": context.job.generation.rationale,
            "task": context.job.task,
            **({"shrink": shrink.model_dump() if shrink else None} if training.captures_layers else {}),
        }

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        from potstill.signals.store import SignalStore

        training, view = context.job.training, view_of(context)
        headers = [header_of(context, view)]
        if training.captures_layers:
            headers.append(layers_header_of(context, view, initial_student(context)))
        with ExitStack() as opened:
            stores = [
                opened.enter_context(SignalStore(context.folder.signals / header.folder_name, header, writable=True))
                for header in headers
            ]
            if context.teacher_weights.served:
                added, without = keep_told(context, stores[0], view)
            else:
                added, without = _read_answers(context, stores, view), 0
        context.progress.say(f"signals: {added} texts captured" + (f", {without} without any" if without else ""))
        return {"stores": [header.folder_name for header in headers], "captured": added, "without": without}

    def outputs(self, context: Context) -> Iterable[Path]:
        return sorted(path for path in context.folder.signals.glob("*/*") if path.is_file() and path.name != "lock")


def _read_answers(context: Context, stores: Sequence[SignalStore], view: TeacherView) -> int:
    """The teacher reads the texts that one of the stores lacks; gives how many those were."""
    from potstill.signals.capture import CaptureText, capture
    from potstill.signals.teacher import open_teacher
    from potstill.training.processor import give_back_memory

    longest = context.teacher_weights.context_window
    texts = [
        CaptureText(text.input_ids, text.target_mask, text.key)
        for row, all_turns in lessons_of(context) for text in view.texts(row, all_turns=all_turns)
        if longest is None or len(text) <= longest
    ]
    if not any(store.missing(text.key for text in texts) for store in stores):
        return 0
    context.progress.say("opening the teacher")
    teacher, _, _ = open_teacher(context.teacher_weights)
    context.progress.begin(f"{context.teacher.name} reads the answers", None)

    def tell(progress: CaptureProgress) -> None:
        context.progress.update(progress.texts, progress.total_texts, f"{progress.positions_per_s:.0f} tokens/s")

    try:
        return capture(teacher, texts, stores, on_progress=tell, should_stop=context.canceled)
    finally:
        context.progress.end()
        del teacher
        give_back_memory()  # the student's training needs it
