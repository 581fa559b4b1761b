"""Stage between prepare and generate, correct: a local teacher is tuned on gold answers before it teaches.

In: the gold answers of rows/{train,validation}.jsonl and the teacher as the job names it; jobs without `teacher.correct` have
no such stage. Out: teacher/ with the best epoch's weights in the hub's own layout, a GGUF file of them where llama.cpp answers
faster, and correction/ with what it has brought. Cost: memory and time of a training of the teacher, and twice its greedy
answers to at most 64 validation rows. A correction that does not lower the loss on the validation rows fails.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from potstill.catalog import ResolvedModel, resolve_teachers
from potstill.errors import ExportError, InputError, JobFailedError, MachineError, PotstillError
from potstill.generation import Direct
from potstill.generation.gate import SCORED_ROWS
from potstill.inference import model_identity
from potstill.pipeline.asking import context_needed, ledger_of
from potstill.pipeline.corrected import Correction, check_correctable, in_its_place, read_correction
from potstill.pipeline.export import VERIFIED_PROMPTS, VERIFIED_TOKENS, quality_loss
from potstill.pipeline.folder import claim, write_json
from potstill.pipeline.gold import Gold, as_asked, check_gold, gold_of, learnable
from potstill.pipeline.lessons import Lessons
from potstill.pipeline.own_score import Asked, own_score
from potstill.pipeline.stage import Context
from potstill.pipeline.together import Assignment, train
from potstill.pipeline.train import relay
from potstill.rows import Row, content_hash
from potstill.spec import CorrectSpec, TrainingSpec
from potstill.student import build_student
from potstill.tasks import Task
from potstill.templates import ChatTemplate
from potstill.training import TrainingResult
from potstill.training.launching import launch_of

FILE = "teacher.Q8_0.gguf"
MAX_LOSS_NATS = 0.02  # a token that the file's greedy choices may lose under the weights; past it the weights themselves answer
_SPLITS = ("train", "validation")
_OWN_KEYS = re.compile(r"\btraining\.(?=batch_size|learning_rate)")


class Correct:
    """Tunes the teacher."""

    name = "correct"
    version = 1

    def inputs(self, context: Context) -> Mapping[str, Any]:
        task, curation = context.task(), context.job.curation
        gold = _gold(context, task)
        asked = {split: as_asked(part.rows, task, chain_of_thought=_reasons(context)) for split, part in gold.items()}
        held_out = (row for split in ("validation", "test") for row in context.stream(split))
        return {
            "teacher": dict(model_identity(check_correctable(_untouched(context)))),
            "settings": _settings(context).model_dump(mode="json"),
            "gold": {split: content_hash([_messages(row) for row in rows]) for split, rows in asked.items()},
            "held_out": content_hash([_messages(row) for row in held_out]) if curation.decontaminate else None,
            "curation": [curation.decontaminate, curation.personal_data],
        }

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        folder, done = context.folder.teacher, context.events.last_finished(self.name)
        if done is not None and done.get("fingerprint") == fingerprint:
            shutil.rmtree(folder, ignore_errors=True)  # it was finished, and its files are not what they were
        claim(folder, fingerprint)
        context.folder.correction.mkdir(exist_ok=True)
        correction = read_correction(context.folder) or self._correct(context)
        for leftover in ("checkpoints", "initial"):  # several times the weights, and nothing goes on from them
            shutil.rmtree(folder / leftover, ignore_errors=True)
        context.progress.say(_told(correction))
        return asdict(correction)

    def _correct(self, context: Context) -> Correction:
        teacher, folder, task = _untouched(context), context.folder.teacher, context.task()
        held_out = {split: context.stream(split) for split in ("validation", "test")}
        gold = learnable(_gold(context, task), held_out, task, context.job.curation)
        check_gold(gold)
        rows = {split: list(as_asked(part.rows, task, chain_of_thought=_reasons(context))) for split, part in gold.items()}
        start = _weights(context, teacher)
        loss, before = self._before(context, teacher, start, rows["validation"])
        result = self._train(context, start, rows)
        if not result.best_validation_loss < loss:
            raise JobFailedError(
                "the correction made the teacher no better", where="key 'teacher.correct' of the job file",
                found=f"validation loss {loss:.3f} nats a token before, {result.best_validation_loss:.3f} after the best epoch",
                expected="a lower one", hint="change the learning rate, add gold answers, or leave 'correct' out",
            )
        write_json(context.folder.correction / "training.json", asdict(result))
        file = self._export(context, teacher)
        after = _score(context, in_its_place(teacher, file or folder), "the corrected teacher")
        correction = Correction(
            file=file.name if file else None, train_rows=len(rows["train"]), validation_rows=len(rows["validation"]),
            best_epoch=result.best_epoch, loss_before=loss, loss_after=result.best_validation_loss, metric=task.main_metric,
            score_before=before, score_after=after,
        )
        correction.write(context.folder)
        return correction

    def _before(
        self, context: Context, teacher: ResolvedModel, start: Path, validation: list[Row]
    ) -> tuple[float, dict[str, Any]]:
        """The untouched teacher's validation loss and score; measured once, whatever becomes of the training."""
        path = context.folder.correction / "before.json"
        if path.is_file():
            known = orjson.loads(path.read_bytes())
            return known["loss"], known["score"]
        from potstill.training.validation_loss import validation_loss

        score = _score(context, teacher, "the teacher as it is")
        context.progress.begin("validation loss of the teacher as it is", len(validation))
        loss = validation_loss(
            start, validation, all_turns=context.job.task == "conversation", batch_size=_settings(context).batch_size,
            on_done=context.advance,
        )
        context.progress.end()
        if loss is None:
            raise InputError("no validation row fits into the teacher's window", where="the gold answers")
        context.events.append("metric", stage=self.name, validation_loss=loss, epoch=0.0)
        write_json(path, {"loss": loss, "score": score})
        return loss, score

    def _train(self, context: Context, start: Path, rows: Mapping[str, list[Row]]) -> TrainingResult:
        settings = _settings(context)
        spec = TrainingSpec(
            learning_rate=settings.rate, batch_size=settings.batch_size, num_epochs=settings.num_epochs,
            processes=context.job.training.processes, launch=context.job.training.launch,
        )
        lessons = Lessons(rows["train"], rows["validation"], [], all_turns=context.job.task == "conversation")
        work = Assignment(start, context.folder.teacher, lessons, spec, settings.adapter)
        context.progress.begin("correcting the teacher", None)
        try:
            with _about_the_teacher():
                return train(work, launch_of(spec), on_event=relay(context, self.name), should_stop=context.canceled)
        finally:
            context.progress.end()

    def _export(self, context: Context, teacher: ResolvedModel) -> Path | None:
        """The weights as a file for llama.cpp; None where the weights themselves answer."""
        folder, path = context.folder.teacher, context.folder.teacher / FILE
        if not _is_faster_with_llama_cpp(teacher):
            return None
        from potstill.exporting.gguf import export_gguf

        context.progress.say("writing the corrected teacher as a GGUF file")
        try:
            template = ChatTemplate.from_folder(folder)
            export_gguf(folder, path, "q8_0", name=f"{context.job.name}-teacher", chat_template=template.source)
        except ExportError as error:
            context.progress.say(f"the corrected teacher answers by transformers: {error.what}")
            return None
        rows = list(islice(context.stream("validation"), VERIFIED_PROMPTS))
        size = context_needed(Direct(context.task()), rows, VERIFIED_TOKENS)
        lost = asyncio.run(quality_loss(path, folder, rows, size))
        if lost > MAX_LOSS_NATS:
            path.unlink()
            context.progress.say(f"the corrected teacher answers by transformers: its GGUF file loses {lost:.4f} nats a token")
            return None
        return path

    def outputs(self, context: Context) -> Iterable[Path]:
        files = [*context.folder.teacher.iterdir(), *context.folder.correction.iterdir()]
        return [path for path in files if path.is_file() and path.name != "fingerprint"]


def _untouched(context: Context) -> ResolvedModel:
    return resolve_teachers(context.job)[0]


def _settings(context: Context) -> CorrectSpec:
    """Only jobs that correct their teacher have this stage."""
    assert context.job.correction is not None
    return context.job.correction


def _reasons(context: Context) -> bool:
    return context.job.generation.chain_of_thought


def _gold(context: Context, task: Task) -> dict[str, Gold]:
    """The gold answers of the rows to learn from, whether or not they may be learnt."""
    return {split: gold_of(context.stream(split), task, chain_of_thought=_reasons(context)) for split in _SPLITS}


def _messages(row: Row) -> list[dict[str, str]]:
    return [message.as_dict() for message in row.messages]


def _weights(context: Context, teacher: ResolvedModel) -> Path:
    """The untouched teacher as a folder in the hub's layout; built where it is not one already."""
    if teacher.kind == "folder" and teacher.path is not None:
        return teacher.path
    target = context.folder.teacher / "initial"
    if not (target / "config.json").is_file():
        context.progress.say("unpacking the teacher")
        with _about_the_teacher():
            build_student(teacher, target, shrink=None)
    return target


def _score(context: Context, teacher: ResolvedModel, called: str) -> dict[str, Any]:
    """How right its greedy answers to validation rows are; those that the journal holds are not asked for again."""
    rows = list(islice((row for row in context.stream("validation") if row.reference is not None), SCORED_ROWS))
    ledger = ledger_of([teacher], context.job.generation, context.folder.journal)
    asked = Asked(context.task(), _reasons(context), context.job.generation.max_tokens, ledger)
    context.progress.begin(f"{called} answers validation rows", len(rows))
    try:
        return own_score(teacher, rows, asked, context.folder.journal / "correct", context.advance)
    finally:
        context.progress.end()


def _is_faster_with_llama_cpp(teacher: ResolvedModel) -> bool:
    """Whether llama.cpp is the way to ask: it is on a processor; on a GPU, transformers asks what was no GGUF file before."""
    import torch

    installed = find_spec("gguf") is not None and find_spec("xllamacpp") is not None
    return installed and (teacher.kind == "gguf" or not torch.cuda.is_available())


@contextmanager
def _about_the_teacher() -> Iterator[None]:
    """What goes wrong in a training is told of the teacher, and of the keys of its correction."""
    try:
        yield
    except PotstillError as error:
        error.what = error.what.replace("student", "teacher")
        error.where = "the gold answers" if error.where == "training.max_length" else error.where
        error.hint = None if error.hint is None else _OWN_KEYS.sub("teacher.correct.", error.hint)
        if isinstance(error, MachineError) and "batch_size" in str(error.found):
            error.found = _OWN_KEYS.sub("teacher.correct.", str(error.found))
            error.hint = "lower teacher.correct.batch_size, or take teacher.correct.adapter: {type: lora}"
        raise


def _told(correction: Correction) -> str:
    return (
        f"teacher corrected on {correction.train_rows} gold rows: validation loss {correction.loss_before:.3f} to "
        f"{correction.loss_after:.3f} nats a token (epoch {correction.best_epoch:g}); {correction.metric} "
        f"{correction.score_before['value']:.3f} to {correction.score_after['value']:.3f} on {correction.score_after['n']} "
        "validation rows"
    )
