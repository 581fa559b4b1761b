"""transformers' Trainer with our objective, our order of rows and our checkpoints.

Checkpoints, schedules, gradient accumulation and devices are the Trainer's. Ours: only answer tokens go through the head, the
loss is divided by the step's target tokens once, the order of rows follows from seed and epoch, validation counts every token
alike and computes in float32, and checkpoints are written at an epoch's end and about every minute between. They hold what it
takes to go on unless that would cost more than a twentieth of the time; the best epoch's weights are always kept.

Several processes: the first writes and deletes, and the others wait for it. Rows that fill up batches have no targets, so that
nothing is learnt or measured twice.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, Trainer, TrainerControl

from potstill.errors import InputError, MachineError
from potstill.signals.products import multiplied_by_the_faster_library
from potstill.training.checkpoints import checkpoint_path, keep_only, mark_complete, steps_needed
from potstill.training.head import sum_tied_gradients_in_place
from potstill.training.layers import load_projectors, save_projectors
from potstill.training.losses.fused import FusedLoss
from potstill.training.objective import Batch, Objective
from potstill.training.order import GroupedByLength
from potstill.training.result import PART
from potstill.training.team import Team
from potstill.training.telemetry import Telemetry
from potstill.training.watch import Watch


class StudentTrainer(Trainer):  # type: ignore[misc]
    """Trains on `TokenisedRow`s with an objective on their targets."""

    def __init__(self, *, order: GroupedByLength, objective: Objective, watch: Watch, bfloat16: bool, **options: Any) -> None:
        super().__init__(**options)
        self._team = Team.here()
        if objective.layers is not None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise InputError(
                "hidden and attention cannot be learnt from where a student's weights are split over processes",
                where="training.loss", expected="plain data-parallel training, or a loss on tokens alone",
                hint="leave out training.launch, and say how many in training.processes",
            )
        if self._team.size == 1:  # DistributedDataParallel would expect a sparse gradient of the sum, too
            sum_tied_gradients_in_place(self.model)
        self._bfloat16 = bfloat16
        self._order = order
        self._objective = objective
        self._watch = watch
        self._telemetry = Telemetry(objective.names)
        self.model_accepts_loss_kwargs = True  # `compute_loss` divides by the targets of the whole step
        self.remove_callback(PrinterCallback)
        self.add_callback(watch)

    @property
    def was_stopped(self) -> bool:
        """Whether the training ended because it was asked to, with a checkpoint to go on from."""
        return self._watch.was_stopped

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """The batch's share of the step's loss, a scalar with a graph."""
        if num_items_in_batch is None or return_outputs:
            raise TypeError("the loss needs the step's number of targets, and there are no outputs beside it")
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self._bfloat16):
            network = self.accelerator.unwrap_model(model)
            made = self._objective.of_batch(model, network, inputs, num_items_in_batch, self._share_done())
        self._note(made, inputs)
        # Gradients are averaged over processes, but the divisor counted the targets of all of them.
        return made.loss * self.accelerator.num_processes

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward; without autocast these are products in float32."""
        with multiplied_by_the_faster_library():
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The losses on the validation rows, in nats a target token, every token counted alike.

        `eval_loss` is the cross-entropy on the teacher's answers whatever is trained with, so that trainings compare.
        """
        model = self.model_wrapped.eval()
        network = self.accelerator.unwrap_model(model)
        told, total = Telemetry(self._objective.validation_names), torch.zeros(2, device=self.args.device)
        with torch.no_grad(), multiplied_by_the_faster_library():
            for batch in self.get_eval_dataloader(eval_dataset):
                inputs = self._prepare_inputs(batch)
                made = self._objective.on_validation(model, network, inputs, self._share_done())
                count = _count(inputs)
                told.add(made.parts, made.agreement, count)
                total += torch.stack([made.loss, made.loss.new_tensor(count)])
        loss, count = self._sum(total).tolist()
        parts = told.take(self._sum) if self._objective.source is not None else {}
        metrics = {f"{metric_key_prefix}_loss": loss / max(count, 1.0)}
        metrics |= {f"{metric_key_prefix}_{name}": value for name, value in parts.items() if name != "ce"}
        self.log(dict(metrics))
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer does, with the parts of the loss since the last time beside it."""
        if "loss" in logs and self._objective.source is not None:
            logs |= {f"{PART}{name}": value for name, value in self._telemetry.take(self._sum).items()}
        super().log(logs, start_time)

    def _share_done(self) -> float:
        return float(self.state.global_step / max(self.state.max_steps, 1))

    def _note(self, made: FusedLoss, inputs: Batch) -> None:
        if self._objective.source is not None:
            self._telemetry.add(made.parts, made.agreement, _count(inputs))

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = self.accelerator.reduce(values, "sum")
        return summed

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer would walk all parameters at every step for it."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> GroupedByLength:
        return self._order

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        # Nothing goes on from the last one, and these take twice the room of the weights.
        if not self._is_finished() or self.was_stopped:
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._objective.layers is not None:
            load_projectors(self._objective.layers, Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder, step = Path(self.args.output_dir), self.state.global_step
        with_state = self._is_finished() or self.was_stopped or self._watch.wants_state()
        if not with_state and self.state.best_global_step != step:
            return
        started = time.monotonic()
        checkpoint = checkpoint_path(folder, step)
        if self._team.is_first:
            shutil.rmtree(checkpoint, ignore_errors=True)  # what a killed process may have left of it
        self._team.wait()
        self.args.save_only_model = not with_state
        try:
            super()._save_checkpoint(model, trial)
            self._team.wait()  # each process has its own part of the state
            if self._team.is_first:
                self._complete(checkpoint)
        except (OSError, SafetensorError, RuntimeError) as error:
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise MachineError(
                "a checkpoint cannot be written", where=str(checkpoint), found=error,
                hint="see that the disk has room for two checkpoints, each three times the student's weights; then run again",
            ) from error
        if self._team.is_first:
            keep_only(folder, steps_needed(folder) | {self.state.best_global_step or step})
        if with_state:
            self._watch.saved(time.monotonic() - started)

    def _is_finished(self) -> bool:
        return bool(self.state.global_step >= self.state.max_steps or self.control.should_training_stop)

    def _complete(self, checkpoint: Path) -> None:
        if self._objective.layers is not None:
            save_projectors(self._objective.layers, checkpoint)
        (checkpoint / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing reads
        mark_complete(checkpoint)


def _count(inputs: Batch) -> int:
    """The targets of a batch; their number is known without asking the device."""
    count: int = inputs["target_ids"].numel()
    return count
