"""What `potstill init` writes: a commented job file, and forty rows in the form that fits the task, enough for a first run."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import get_args

from potstill.errors import InputError, MachineError
from potstill.pipeline.folder import write_text
from potstill.spec import TaskName

_JOB = """\
# A distillation job. Before money is spent: potstill check {task}.yaml. Then: potstill run {task}.yaml
task: {task}

# Who answers the rows. This one runs on your machine, without an account; it is small and often wrong.
# Better ones: deepseek-flash, claude-sonnet, llama-3.1-405b, ... or an endpoint of your own:
#   teacher: {{model: my-model, endpoint: https://host/v1, api_key_env: MY_API_KEY, concurrency: 32}}
# Or several: teacher: [deepseek-flash, claude-haiku], and generation.strategy says who answers what.
teacher: smollm2-135m-instruct

# Who learns: a catalogue name (phi-4-mini, llama-3.1-8b, ...), a hub id, a folder or a .gguf file.
# shrink keeps that many layers; without it the student stays as it is.
# For a large student train an adapter: adapter: {{type: lora, r: 16}}
student: {{model: smollm2-135m-instruct, shrink: {{layers: 16}}}}

data:
  train: {task}.jsonl          # jsonl, json, csv, parquet, or a data set of the hub
  # validation: more.jsonl     # without it a tenth of train, at least 8 rows
  # test: others.jsonl         # without it a further tenth, at least 8 rows
  on_bad_row: fail             # or drop

# samples: 4 asks for four answers a row; select keeps all that differ, the best, or by vote.
generation: {{temperature: 0.7, max_tokens: {max_tokens}}}

curation:
  deduplicate: near            # or exact, none
  decontaminate: true          # drop what is too close to a held-out row
{verify}

training: {{learning_rate: 2.0e-5, batch_size: 2, num_epochs: 3}}

export: [gguf:q8_0]            # or gguf:f16; the first one is what the report measures
"""
_MAX_TOKENS = {"nli": 16, "classification": 24, "qa": 64}
_VERIFY = "  verify: auto                 # drop answers that contradict a gold answer; none keeps them"
# Of forty answers a teacher this small gets too few right to train on.
_KEEP_WRONG = """\
  verify: none                 # keeps answers that contradict a gold answer: this teacher gets few right.
                               # With a better one: auto, which drops them"""
_HAVE_GOLD = {"nli", "classification", "qa", "math"}


def write_samples(task: str, folder: Path) -> tuple[Path, Path]:
    """Write TASK.yaml and TASK.jsonl into a folder, which is made where it does not exist.

    Raises:
        InputError: no such task, one of the files exists already, or the folder is a file.
        MachineError: the folder cannot be written.
    """
    if task not in get_args(TaskName):
        raise InputError("unknown task", where="potstill init TASK", found=task, expected=", ".join(get_args(TaskName)))
    if folder.exists() and not folder.is_dir():
        raise InputError("this is a file, not a folder", where=str(folder), expected="--to DIR")
    job, rows = folder / f"{task}.yaml", folder / f"{task}.jsonl"
    for path in (job, rows):
        if path.exists():
            raise InputError("the file exists already", where=str(path), hint="choose another folder with --to DIR")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(rows, (files("potstill.pipeline") / "sample_rows" / rows.name).read_text(encoding="utf-8"))
        verify = _KEEP_WRONG if task in _HAVE_GOLD else _VERIFY
        write_text(job, _JOB.format(task=task, max_tokens=_MAX_TOKENS.get(task, 512), verify=verify))
    except OSError as error:
        raise MachineError("the sample files cannot be written", where=str(folder), found=error.strerror) from error
    return job, rows
