"""Train a student: rows in, weights out.

In: an untrained student's folder, the rows to learn and those to validate on. Out: the best epoch's weights in the hub's own
layout, checkpoints beside them, and the training's history. What it costs: in float32 16 bytes a weight (weight, gradient, two
AdamW moments), 18 where the processor multiplies bfloat16, less with an adapter; the head's logits for the answer tokens of a
batch, and two passes through the student a step. A training that was killed goes on from its newest complete checkpoint; on a
CPU it ends with the same bits as one that was not. Several processes train one student where each of them makes the same call:
every one has the memory of one and takes its turn at the batches, so that a step sees as many rows more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from potstill.errors import CorruptFileError, InputError, JobCanceledError, MachineError, MissingExtraError
from potstill.quiet import quiet_transformers
from potstill.rows import Row
from potstill.spec import AdapterSpec, TrainingSpec
from potstill.student.adapters import attach_adapter
from potstill.student.size import parameter_count
from potstill.templates import ChatTemplate
from potstill.training.checkpoints import checkpoint_path, keep_only, newest_checkpoint, processes_of, read_state
from potstill.training.publishing import publish, unreadable
from potstill.training.result import (
    TrainingResult,
    best_point,
    epochs_since_best,
    loss_curve,
    saw_overfitting,
    validation_curve,
)

if TYPE_CHECKING:
    from potstill.training.collator import TokenisedRows
    from potstill.training.objective import Objective
    from potstill.training.teaching import Teaching
    from potstill.training.team import Team
    from potstill.training.watch import OnEvent


@dataclass(frozen=True, slots=True)
class _Data:
    """What is trained on, and how many steps that takes. `max_length` is in tokens."""

    train: TokenisedRows
    validation: TokenisedRows
    max_length: int
    steps_per_epoch: int
    total_steps: int


def train_student(
    student_dir: Path,
    train_rows: Sequence[Row],
    validation_rows: Sequence[Row],
    out_dir: Path,
    spec: TrainingSpec,
    *,
    adapter: AdapterSpec | None,
    all_turns: bool,
    on_event: OnEvent,
    rationale_rows: Sequence[Row] = (),
    teaching: Teaching | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train the student in `student_dir` and write the best epoch's weights to `out_dir`.

    Args:
        student_dir: An untrained student in the hub's layout; it is not changed.
        train_rows: Dialogues that end with the answer to learn.
        validation_rows: The same, never trained on; their loss picks the epoch to keep.
        out_dir: Gets model.safetensors, the configuration, the tokenizer and its template; `adapter/` where one was trained.
            Checkpoints in `out_dir/checkpoints` are continued: they must be of the same student, rows and settings.
        spec: How to train.
        adapter: Train a low-rank adapter, merged into the saved weights, instead of all weights.
        all_turns: Learn every assistant turn of a dialogue, not the last one alone.
        on_event: Called with ("progress", {step, total_steps, epoch, loss, learning_rate, grad_norm, parts, tokens_per_s,
            memory_bytes, eta_s}) and ("metric", {validation_loss, epoch, and validation_NAME for each part of the loss}). Rates
            cover this process, evaluations and checkpoints included.
        rationale_rows: Dialogues that end with reasoning, learnt beside the others with `spec.rationale_weight`.
        teaching: The teacher's signals, where `spec.loss` compares with them; rows for which there are none are left out.
        should_stop: Asked every few steps; where it says yes, a checkpoint is written and the training ends.

    Raises:
        MissingExtraError: torch, transformers, accelerate or peft is not installed.
        InputError: no row is left to train or to validate on, or the template cannot render one; or the checkpoints are those
            of another number of processes.
        JobCanceledError: `should_stop` said yes; the same call goes on from the checkpoint.
        JobFailedError: the training diverged.
        MachineError: memory or disk ran out.
        CorruptFileError: a checkpoint is not what was written.
    """
    try:
        import accelerate  # noqa: F401
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("train", error.name or "transformers") from error
    from safetensors import SafetensorError

    from potstill.training.team import Team

    folder, team = out_dir / "checkpoints", Team.here()
    with quiet_transformers():
        data = _prepare(student_dir, train_rows, validation_rows, rationale_rows, spec, all_turns, teaching, team.size)
        checkpoint = _newest(folder, team)
        if checkpoint is None or not _is_finished(read_state(checkpoint), spec, data.total_steps):
            try:
                _train(student_dir, folder, checkpoint, data, spec, adapter, teaching, on_event, should_stop, team)
            except torch.OutOfMemoryError as error:
                raise MachineError(
                    "the GPU's memory ran out in training", found=f"training.batch_size: {spec.batch_size}",
                    hint="lower training.batch_size and raise training.gradient_accumulation_steps as much",
                ) from error
            except UnpicklingError as error:  # transformers loads its state as plain data, and this was something else
                raise CorruptFileError(
                    "a checkpoint holds something other than a training's state", where=str(checkpoint), hint="delete it",
                ) from error
            except SafetensorError as error:
                raise unreadable(student_dir, error) from error
            checkpoint = _newest(folder, team)
        if checkpoint is None:
            raise CorruptFileError("the last checkpoint is not what was written", where=str(folder))
        state = read_state(checkpoint)
        best = checkpoint_path(folder, state["best_global_step"])
        if team.is_first:
            publish(student_dir, best, out_dir, has_adapter=adapter is not None)
        team.wait()
    return _result(state, data, out_dir, best)


def _prepare(
    student_dir: Path, train_rows: Sequence[Row], validation_rows: Sequence[Row], rationale_rows: Sequence[Row],
    spec: TrainingSpec, all_turns: bool, teaching: Teaching | None, processes: int,
) -> _Data:
    """Tokenise, and count the steps as the Trainer will."""
    from transformers import AutoConfig, AutoTokenizer

    from potstill.training.collator import tokenise_rows, weigh_parts

    tokenizer = AutoTokenizer.from_pretrained(student_dir)
    template = ChatTemplate.from_folder(student_dir)
    window = getattr(AutoConfig.from_pretrained(student_dir), "max_position_embeddings", None)
    max_length = min(limit for limit in (spec.max_length, window, 10**9) if limit)

    def tokenised(rows: Sequence[Row], all_turns: bool) -> TokenisedRows:
        key_of = None if teaching is None else partial(teaching.keys, all_turns=all_turns)
        return tokenise_rows(rows, template, tokenizer, all_turns=all_turns, max_length=max_length, key_of=key_of)

    sets = []
    for name, rows in (("training", train_rows), ("validation", validation_rows)):
        sets.append(tokenised(rows, all_turns))
        if not sets[-1].texts:
            raise _no_row_left(name, len(rows), sets[-1], max_length)
    reasoning = tokenised(rationale_rows, all_turns=False)
    sets[0] = weigh_parts(sets[0], reasoning, spec.rationale_weight)
    batches = math.ceil(len(sets[0].texts) / (spec.batch_size * processes))
    steps_per_epoch = math.ceil(batches / spec.gradient_accumulation_steps)
    return _Data(sets[0], sets[1], max_length, steps_per_epoch, math.ceil(spec.num_epochs * steps_per_epoch))


def _no_row_left(name: str, count: int, rows: TokenisedRows, max_length: int) -> InputError:
    if rows.untaught:
        return InputError(
            f"no {name} row is left", where="training.method: kd",
            found=f"{count} rows, {len(rows.untaught)} of them without the teacher's probabilities for the student's tokens",
            expected="a teacher and a student that split text into the same tokens",
            hint="training.method: sft learns from the answers alone",
        )
    return InputError(
        f"no {name} row is left", where="training.max_length", found=f"{count} rows",
        expected=f"rows of at most {max_length} tokens",
    )


def _newest(folder: Path, team: Team) -> Path | None:
    """The checkpoint to go on from, which the first process looks for; without one, what is left of others goes.

    Raises:
        CorruptFileError: it is not what was written.
        InputError: it is of another number of processes.
    """
    checkpoint = newest_checkpoint(folder) if team.is_first else None
    if checkpoint is None and team.is_first:
        keep_only(folder, ())
    step = read_state(checkpoint)["global_step"] if checkpoint else 0
    (step,) = team.first_says(step)
    if not step:
        return None
    checkpoint = checkpoint_path(folder, step)
    if (others := processes_of(checkpoint)) != team.size:
        raise InputError(
            "a training goes on with as many processes as it began with", where="training.processes", found=str(team.size),
            expected=str(others), hint=f"or delete {folder}, and it begins again",
        )
    return checkpoint


def _is_finished(state: dict[str, Any], spec: TrainingSpec, total_steps: int) -> bool:
    """Whether nothing is left to train after this checkpoint."""
    stopped = 0 < spec.early_stopping_patience <= epochs_since_best(validation_curve(state["log_history"]))
    return stopped or state["global_step"] >= total_steps


def _train(
    student_dir: Path, folder: Path, checkpoint: Path | None, data: _Data, spec: TrainingSpec, adapter: AdapterSpec | None,
    teaching: Teaching | None, on_event: OnEvent, should_stop: Callable[[], bool], team: Team,
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, set_seed

    from potstill.student.attention import attend_to_short_texts
    from potstill.student.processor import multiplies_bfloat16
    from potstill.training.arguments import training_arguments
    from potstill.training.collator import FILLER, Collator
    from potstill.training.order import GroupedByLength, fillers
    from potstill.training.processor import freed_memory_kept
    from potstill.training.trainer import StudentTrainer
    from potstill.training.watch import Watch

    set_seed(spec.seed)  # an adapter starts with random weights
    network = AutoModelForCausalLM.from_pretrained(student_dir, dtype="float32", use_safetensors=True)
    texts = data.train.texts
    validation = sorted(data.validation.texts, key=len)  # rows of like length together need less padding
    attend_to_short_texts(network, max(map(len, (*texts, *validation))))
    if adapter is not None:
        network = attach_adapter(network, adapter)
    order = GroupedByLength([len(text) for text in texts], spec.batch_size, spec.seed, team.size)
    trainer = StudentTrainer(
        order=order,
        objective=_objective(spec, network, teaching),
        watch=Watch(
            order, on_event, data.steps_per_epoch, spec.early_stopping_patience, data.train.tokens / data.steps_per_epoch,
            should_stop, team,
        ),
        bfloat16=multiplies_bfloat16() if spec.precision == "auto" else spec.precision == "bfloat16",
        model=network,
        args=training_arguments(folder, spec, total_steps=data.total_steps),
        data_collator=Collator(pad_id=0),  # any id of the vocabulary: padding is neither seen nor learnt
        train_dataset=(*texts, *[FILLER] * order.fillers),
        eval_dataset=[*validation, *[FILLER] * fillers(len(validation), spec.batch_size, team.size)],
    )
    if team.size > 1:
        torch.manual_seed(spec.seed + team.index)  # dropout differs from process to process
    with freed_memory_kept():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.was_stopped:
        raise JobCanceledError("the training was cancelled", where=str(folder), hint="it goes on from its last checkpoint")


def _objective(spec: TrainingSpec, network: Any, teaching: Teaching | None) -> Objective:
    from potstill.training.head import is_plain
    from potstill.training.layers import layer_transfer
    from potstill.training.losses.mix import MixSchedule, Schedule
    from potstill.training.objective import Objective

    weights: dict[str, Schedule] = {name: Schedule.of(weight) for name, weight in spec.loss.items()}
    schedule = MixSchedule(weights, Schedule.of(spec.temperature), spec.jsd_beta, spec.skew)
    if teaching is None:
        return Objective(schedule, None, network.get_output_embeddings().weight.shape[0], is_plain(network))
    fused = is_plain(network)
    layers = None if teaching.layers is None else layer_transfer(network, teaching.layers, spec.loss, teaching.kept)
    return Objective(schedule, teaching.source, teaching.vocabulary, fused, layers)


def _result(state: dict[str, Any], data: _Data, out_dir: Path, best: Path) -> TrainingResult:
    history = state["log_history"]
    losses, validation = loss_curve(history), validation_curve(history)
    kept = best_point(validation)
    return TrainingResult(
        steps=state["global_step"],
        best_step=kept.step,
        best_epoch=kept.epoch,
        best_validation_loss=kept.loss,
        stopped_early=state["global_step"] < data.total_steps,
        overfitting=saw_overfitting(losses, validation),
        loss_curve=losses,
        validation_curve=validation,
        train_texts=len(data.train.texts),
        train_tokens=data.train.tokens,
        train_target_tokens=data.train.target_tokens,
        validation_texts=len(data.validation.texts),
        train_left_out=data.train.left_out,
        validation_left_out=data.validation.left_out,
        train_untaught=data.train.untaught,
        max_length=data.max_length,
        parameters=parameter_count(out_dir),
        trained_parameters=parameter_count(best),
    )
