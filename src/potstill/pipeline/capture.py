"""Stage between curate and train, capture: the teacher reads the kept answers, and what it holds possible at them is kept.

In: curated/ and the teacher. Jobs have this stage whose training compares distributions, unless the teacher runs beside the
student. Out: a store under signals/, for all epochs and all students; texts that it holds are not read again. Cost: one pass of
the teacher over each text. A teacher behind an endpoint told its probabilities with its answers, which costs nothing more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import JobFailedError
from potstill.inference import Journal, model_identity
from potstill.pipeline.lessons import lessons_of
from potstill.pipeline.stage import Context
from potstill.pipeline.teaching import header_of, view_of

if TYPE_CHECKING:
    from potstill.signals.capture import CaptureProgress
    from potstill.signals.store import SignalStore
    from potstill.training.teaching import TeacherView


class Capture:
    """Keeps what the teacher holds possible."""

    name = "capture"
    version = 1

    def inputs(self, context: Context) -> Mapping[str, Any]:
        training = context.job.training
        return {
            "curated": context.digests(context.folder.curated / "train.jsonl", context.folder.curated / "validation.jsonl"),
            "teacher": dict(model_identity(context.teacher_weights)),
            "student": dict(model_identity(context.student)),  # its tokens have to be the teacher's
            "signal": training.signal.model_dump(mode="json"),
            "temperatures": training.temperatures,
            "rationale": context.job.generation.rationale,
            "task": context.job.task,
        }

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        from potstill.signals.store import SignalStore

        view = view_of(context)
        header = header_of(context.job.training, view)
        with SignalStore(context.folder.signals / header.folder_name, header, writable=True) as store:
            if context.teacher_weights.served:
                added, without = self._told(context, store, view)
            else:
                added, without = self._read(context, store, view), 0
        context.progress.say(f"signals: {added} texts captured" + (f", {without} without any" if without else ""))
        return {"store": header.folder_name, "captured": added, "without": without}

    def _read(self, context: Context, store: SignalStore, view: TeacherView) -> int:
        """The teacher reads the texts that the store lacks."""
        from potstill.signals.capture import CaptureText, capture
        from potstill.signals.teacher import open_teacher
        from potstill.training.processor import give_back_memory

        longest = context.teacher_weights.context_window
        texts = [
            CaptureText(text.input_ids, text.target_mask, text.key)
            for row, all_turns in lessons_of(context) for text in view.texts(row, all_turns=all_turns)
            if longest is None or len(text) <= longest
        ]
        if not store.missing(text.key for text in texts):
            return 0
        context.progress.say("opening the teacher")
        teacher, _, _ = open_teacher(context.teacher_weights)
        context.progress.begin(f"{context.teacher.name} reads the answers", None)

        def tell(progress: CaptureProgress) -> None:
            context.progress.update(progress.texts, progress.total_texts, f"{progress.positions_per_s:.0f} tokens/s")

        try:
            return capture(teacher, texts, store, on_progress=tell, should_stop=context.canceled)
        finally:
            context.progress.end()
            del teacher
            give_back_memory()  # the student's training needs it

    def _told(self, context: Context, store: SignalStore, view: TeacherView) -> tuple[int, int]:
        """What stands in the journal beside the answers; gives how many texts have it now, and how many cannot."""
        from potstill.signals.endpoint import signals_of
        from potstill.signals.records import Record
        from potstill.signals.token_bytes import TokenBytes
        from potstill.signals.top_k import TopKEncoding

        encoding, without = store.encoding, Counter[str]()
        assert isinstance(encoding, TopKEncoding)  # what else could be asked for is refused by `potstill check`
        rows = ((row, view.texts(row, all_turns=all_turns)) for row, all_turns in lessons_of(context))
        incomplete = ((row, texts) for row, texts in rows if store.missing(text.key for text in texts))
        added = 0
        with Journal(context.folder.journal / "generate") as journal:
            for text, signal in signals_of(journal, incomplete, TokenBytes(view.tokenizer), without):
                if store.missing([text.key]):
                    store.append([Record(text.key, len(signal), encoding.pack_told(signal))])
                    added += 1
        for reason, count in without.most_common():
            context.progress.say(f"signals: {count} texts have none: {reason}")
        if not len(store):
            raise JobFailedError(
                "the teacher told no probabilities that the student could learn from", where="journal/generate",
                found="; ".join(f"{count} texts: {reason}" for reason, count in without.most_common()),
                hint="training.method: sft learns from the answers alone",
            )
        return added, without.total()

    def outputs(self, context: Context) -> Iterable[Path]:
        return sorted(path for path in context.folder.signals.glob("*/*") if path.is_file() and path.name != "lock")
