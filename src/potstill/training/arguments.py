"""The settings of transformers' Trainer that a job's own come to."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_tf32_available

from potstill.spec import TrainingSpec


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
        ddp_find_unused_parameters=False,  # all are used; projectors where the wrapper would not see it
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        log_level="error",
        report_to=list(spec.trackers),
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # else the Trainer splits batches over all GPUs of the process, and positions no longer fit
    return arguments
