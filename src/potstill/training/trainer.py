"""transformers' Trainer with our objective, our order of rows and our checkpoints.

Checkpoints, schedules, gradient accumulation and devices are the Trainer's. Ours: only answer tokens go through the head, the
loss is divided by the step's target tokens once, the order of rows follows from seed and epoch, validation counts every token
alike and computes in float32, and a checkpoint is written at each epoch's end and about every minute between.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainingArguments
from transformers.utils import is_torch_tf32_available

from potstill.errors import JobFailedError, MachineError
from potstill.spec import TrainingSpec
from potstill.training.checkpoints import checkpoint_path, keep_only, mark_complete
from potstill.training.losses.cross_entropy import cross_entropy
from potstill.training.order import GroupedByLength
from potstill.training.result import epochs_since_best, validation_curve

CHECKPOINT_INTERVAL_S = 60.0
SAVING_SHARE = 0.05  # of the time at most: large models save more rarely than every minute
OnEvent = Callable[[str, dict[str, Any]], None]


@contextmanager
def head_sees_only(head: torch.nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """While inside, the head computes logits for these positions alone: (N, V) instead of (B, L, V).

    Args:
        head: The output embedding of a causal language model, called by the model's own forward with (B, L, H). Wrapping it
            there, instead of calling its parts, keeps adapters, biases, the model's scaling of logits and all hooks at work.
        positions: (N,) indices into the B*L flattened positions.

    The head computes in float32 also under autocast: logits rounded to bfloat16 before the softmax cost 4 to 23 % of the
    gradient's accuracy.
    """
    forward = head.forward

    def of_positions(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        picked = hidden.flatten(0, -2).index_select(0, positions)
        with torch.autocast(picked.device.type, enabled=False):
            logits: torch.Tensor = forward(picked.float(), *args, **kwargs)
        return logits

    own = vars(head).get("forward")
    head.forward = of_positions
    try:
        yield
    finally:
        if own is None:
            del head.forward
        else:
            head.forward = own


def sum_tied_gradients_in_place(network: Any) -> None:
    """Where embedding and head are one matrix, add the embedding's gradient, a few rows, to the head's, which is whole.

    Otherwise the embedding's is a whole matrix too, nearly all zeros, and their sum a third.
    """
    embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
    if embedding.weight.requires_grad and head.weight is embedding.weight:
        embedding.sparse = True


class StudentTrainer(Trainer):  # type: ignore[misc]
    """Trains on `TokenisedRow`s with the weighted cross-entropy of their targets."""

    def __init__(self, *, order: GroupedByLength, ce_weight: float, on_event: OnEvent, steps_per_epoch: int,
                 patience: int, tokens_per_step: float, bfloat16: bool, should_stop: Callable[[], bool],
                 **options: Any) -> None:
        super().__init__(**options)
        if self.args.world_size == 1:  # DistributedDataParallel would expect a sparse gradient of the sum, too
            sum_tied_gradients_in_place(self.model)
        self._bfloat16 = bfloat16
        self._order = order
        self._ce_weight = ce_weight
        self._watch = Watch(order, on_event, steps_per_epoch, patience, tokens_per_step, should_stop)
        self.model_accepts_loss_kwargs = True  # `compute_loss` divides by the targets of the whole step
        self.remove_callback(PrinterCallback)
        self.add_callback(self._watch)

    @property
    def was_stopped(self) -> bool:
        """Whether the training ended because it was asked to, with a checkpoint to go on from."""
        return self._watch.was_stopped

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The batch's share of the step's loss, a scalar with a graph."""
        if num_items_in_batch is None or return_outputs:
            raise TypeError("the loss needs the step's number of targets, and there are no outputs beside it")
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self._bfloat16):
            loss = self._cross_entropy(model, inputs, num_items_in_batch)
        # Gradients are averaged over processes, but the divisor counted the targets of all of them.
        return loss * (self._ce_weight * self.accelerator.num_processes)

    def _cross_entropy(self, model: Any, inputs: Mapping[str, torch.Tensor], target_count: torch.Tensor | int) -> torch.Tensor:
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        with head_sees_only(head, inputs["positions"]):
            logits = model(input_ids=inputs["input_ids"], use_cache=False).logits
        return cross_entropy(logits, inputs["target_ids"], target_count, inputs.get("weights"))

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The loss on the validation rows, in nats a target token, every token counted alike."""
        model = self.model_wrapped.eval()
        total, count = 0.0, 0.0
        with torch.no_grad():
            for batch in self.get_eval_dataloader(eval_dataset):
                inputs = self._prepare_inputs(batch)
                total += self._cross_entropy(model, inputs, 1).item()
                count += inputs["target_ids"].numel()
        # In float32: Apple's GPUs have nothing wider.
        total, count = self.accelerator.reduce(torch.tensor([total, count], device=self.args.device), "sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": total / max(count, 1.0)}
        self.log(dict(metrics))
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer would walk all parameters at every step for it."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> GroupedByLength:
        return self._order

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        finished = self.state.global_step >= self.state.max_steps or self.control.should_training_stop
        if not finished or self.was_stopped:  # nothing goes on from the last one, and these take twice the room of the weights
            super()._save_optimizer_and_scheduler(output_dir)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        started = time.monotonic()
        folder, step = Path(self.args.output_dir), self.state.global_step
        checkpoint = checkpoint_path(folder, step)
        shutil.rmtree(checkpoint, ignore_errors=True)  # what a killed process may have left of it
        try:
            super()._save_checkpoint(model, trial)
            (checkpoint / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing reads
            mark_complete(checkpoint)
        except (OSError, SafetensorError, RuntimeError) as error:
            shutil.rmtree(checkpoint, ignore_errors=True)
            raise MachineError(
                "a checkpoint cannot be written", where=str(checkpoint), found=error,
                hint="see that the disk has room for two checkpoints, each three times the student's weights; then run again",
            ) from error
        keep_only(folder, {step, self.state.best_global_step or step})
        self._watch.saved(time.monotonic() - started)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Tells the caller how far the training is, and tells the Trainer when to log, save and stop."""

    def __init__(
        self, order: GroupedByLength, on_event: OnEvent, steps_per_epoch: int, patience: int, tokens_per_step: float,
        should_stop: Callable[[], bool],
    ) -> None:
        self._order = order
        self._on_event = on_event
        self._steps_per_epoch = steps_per_epoch
        self._patience = patience
        self._tokens_per_step = tokens_per_step
        self._should_stop = should_stop
        self.was_stopped = False
        self._first_step = 0
        self._started = self._last_save = time.monotonic()
        self._save_interval_s = CHECKPOINT_INTERVAL_S

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._first_step = state.global_step
        self._started = self._last_save = time.monotonic()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._order.epoch = state.global_step // self._steps_per_epoch

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self._steps_per_epoch == 0 or state.global_step >= state.max_steps:
            control.should_log = True  # so that no loss is averaged across an epoch's end, where the Trainer saves
        elif control.should_log:  # only where the loss was just logged is a resumed history the same
            self.was_stopped = control.should_training_stop = self._should_stop()
            control.should_save = self.was_stopped or time.monotonic() - self._last_save >= self._save_interval_s

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.was_stopped:  # within an epoch, whose end this is not
            control.should_log = control.should_evaluate = control.should_save = False

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        _check_finite(logs["loss"], state.global_step)
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        done = state.global_step - self._first_step
        self._on_event("progress", {
            "step": state.global_step, "total_steps": state.max_steps, "epoch": state.epoch, "loss": logs["loss"],
            "learning_rate": logs["learning_rate"], "tokens_per_s": done * self._tokens_per_step / elapsed_s,
            "eta_s": (state.max_steps - state.global_step) * elapsed_s / max(done, 1),
        })

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        _check_finite(metrics["eval_loss"], state.global_step)
        self._on_event("metric", {"validation_loss": metrics["eval_loss"], "epoch": state.epoch})
        if 0 < self._patience <= epochs_since_best(validation_curve(state.log_history)):
            control.should_training_stop = True

    def saved(self, seconds: float) -> None:
        """A checkpoint was written, which took so long."""
        self._last_save = time.monotonic()
        self._save_interval_s = max(CHECKPOINT_INTERVAL_S, seconds / SAVING_SHARE)


def _check_finite(loss: float, step: int) -> None:
    if not loss < float("inf"):  # also false for not-a-number
        raise JobFailedError(
            "the training diverged: the loss is no finite number", where=f"step {step}", found=str(loss),
            hint="lower training.learning_rate",
        )


def training_arguments(folder: Path, spec: TrainingSpec, *, total_steps: int) -> TrainingArguments:
    """AdamW, linear warm-up and cosine decay, gradients clipped to norm 1."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=spec.batch_size,
        per_device_eval_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation_steps,
        num_train_epochs=spec.num_epochs,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        max_grad_norm=1.0,
        lr_scheduler_type="cosine",
        warmup_steps=round(spec.warmup_ratio * total_steps),
        seed=spec.seed,
        tf32=True if is_torch_tf32_available() else None,  # for the head, which computes in float32
        logging_strategy="steps",
        logging_steps=max(1, min(10, total_steps // 200)),
        logging_nan_inf_filter=False,  # it would wait for the device at every step; `Watch` looks at what is logged
        eval_strategy="epoch",
        save_strategy="epoch",
        metric_for_best_model="loss",
        greater_is_better=False,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        log_level="error",
        report_to=[],
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # else the Trainer splits batches over all GPUs of the process, and positions no longer fit
    return arguments
