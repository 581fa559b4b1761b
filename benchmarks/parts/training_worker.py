"""One client of benchmarks/training.py, in a process of its own: `training_worker.py WHO OPTIONS-AS-JSON`.

WHO is potstill, trl, distill-anything, products or loss; the two peers run in environments of their own, so this file imports
what it needs where it needs it. The last line it prints is JSON: seconds from the call that trains to the trained student in
its folder, and megabytes of memory at the peak of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

Options = dict[str, Any]
Told = dict[str, Any]
RATE_S = 4.0


def potstill(options: Options) -> Told:
    """The stages capture and train: models opened, rows read twice, epochs validated and kept, all within the time."""
    import transformers  # noqa: F401  # is loaded before, as in the peers
    from training_ours import train

    imported = resident("VmRSS")
    return measured(lambda: train(options), imported)


def trl(options: Options) -> Told:
    """The GKD trainer on the teacher's texts alone (lmbda 0); its beta 0 is KL(teacher | student).

    It divides by the step's targets, keeps float32 weights, and its collator pads on the left; `bf16` and
    `gradient_checkpointing` are on unless they are turned off.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    imported = resident("VmRSS")
    tokenizer = AutoTokenizer.from_pretrained(options["student"])
    student, teacher = (
        AutoModelForCausalLM.from_pretrained(options[name], dtype=torch.float32) for name in ("student", "teacher")
    )
    settings = GKDConfig(
        output_dir=options["out"], lmbda=0.0, beta=0.0, per_device_train_batch_size=options["batch"],
        num_train_epochs=options["epochs"], learning_rate=options["learning_rate"], lr_scheduler_type="cosine",
        warmup_steps=options["warmup_steps"], seed=0, use_cpu=True, bf16=options["bf16"],
        gradient_checkpointing=options["recompute"], save_strategy="no", report_to="none", disable_tqdm=True,
    )
    dataset = Dataset.from_list([{"messages": row["messages"]} for row in read(options)])
    trainer = GKDTrainer(model=student, teacher_model=teacher, args=settings, train_dataset=dataset, processing_class=tokenizer)

    def train() -> Told:
        trainer.train()
        trainer.save_model(options["out"])
        return {"student": options["out"]}

    return measured(train, imported)


def distill_anything(options: Options) -> Told:
    """Its logit mode with forward KL alone, at temperature 1 and over the whole vocabulary; on a CPU it computes in float32."""
    from distillanything.config import DistillConfig
    from distillanything.data.tokenize import SFTDataset
    from distillanything.loading import load_model_and_tokenizer
    from distillanything.teachers.local import HFTeacher
    from distillanything.train.trainer import DistillTrainer

    imported = resident("VmRSS")
    student, tokenizer = load_model_and_tokenizer(options["student"])
    teacher = HFTeacher(options["teacher"]).model
    settings = DistillConfig.model_validate({
        "mode": "logit",
        "loss": {"kind": "forward_kl", "temperature": 1.0, "alpha": 1.0},
        "train": {
            "output_dir": options["out"], "lr": options["learning_rate"], "epochs": options["epochs"],
            "batch_size": options["batch"], "grad_accum": 1, "warmup_ratio": options["warmup_ratio"], "weight_decay": 0.0,
        },
    })
    dataset = SFTDataset(read(options), tokenizer)
    trainer = DistillTrainer(student, tokenizer, dataset, settings, teacher_model=teacher)

    def train() -> Told:
        trainer.train()
        return {"student": options["out"]}

    return measured(train, imported)


def products(options: Options) -> Told:
    """Operations a second of plain matrix products in a format: all of a layer's, forward and backward."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(options["student"])
    width, inner = config.hidden_size, config.intermediate_size
    heads = width // config.num_attention_heads * config.num_key_value_heads
    layer = [(width, width), (width, heads), (width, heads), (width, width), (width, inner), (width, inner), (inner, width)]
    return {"per_s": products_per_s(layer, options["tokens"], getattr(torch, options["format"]))}


def products_per_s(shapes: list[tuple[int, int]], tokens: int, dtype: Any) -> float:
    """Operations a second over weights of these shapes: output, gradient of the input, gradient of the weight."""
    import torch

    from potstill.signals.products import multiplied_by_the_faster_library

    triples = [
        (torch.randn(tokens, rows).to(dtype), torch.randn(rows, columns).to(dtype), torch.randn(tokens, columns).to(dtype))
        for rows, columns in shapes
    ]

    def once() -> None:
        for states, weight, gradient in triples:
            torch.mm(states, weight)
            torch.mm(gradient, weight.T)
            torch.mm(states.T, gradient)

    def rate() -> float:
        once()
        rounds, started = 0, time.perf_counter()
        while time.perf_counter() - started < RATE_S or rounds < 3:
            once()
            rounds += 1
        return rounds / (time.perf_counter() - started)

    best = rate()
    with multiplied_by_the_faster_library():  # in float32, where torch's choice is not the machine's best
        best = max(best, rate())
    return best * sum(6 * tokens * rows * columns for rows, columns in shapes)


def loss(options: Options) -> Told:
    """How close a student came to its teacher, on rows that nobody trained on."""
    from training_judge import judged

    from potstill.rows import read_rows

    return judged(Path(options["teacher"]), Path(options["student"]), list(read_rows(Path(options["rows"]))))


def read(options: Options) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(options["rows"]).read_text().splitlines()[: options["limit"]]]


def measured(train: Callable[[], Told], imported_mb: float | None) -> Told:
    """What a training tells, its seconds, and megabytes resident at its peak (null where the system does not tell)."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of what was loaded
    started, cpu = time.perf_counter(), time.process_time()
    told = train()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return {**told, "seconds": seconds, "cpu_seconds": cpu_seconds, "imported_mb": imported_mb, "peak_mb": resident("VmHWM")}


def resident(entry: str) -> float | None:
    """Megabytes, as the system counts them for this process."""
    if sys.platform != "linux":
        return None
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(entry))


if __name__ == "__main__":
    clients = {"potstill": potstill, "trl": trl, "distill-anything": distill_anything, "products": products, "loss": loss}
    print(json.dumps(clients[sys.argv[1]](json.loads(sys.argv[2]))), flush=True)
