"""What `potstill init` writes: a commented job file and a few rows in the form that fits the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import orjson

from potstill.errors import InputError, MachineError
from potstill.pipeline.folder import write_text
from potstill.spec import TaskName

_SUPPORT = {"role": "system", "content": "You are the support desk of a bicycle shop. Answer in at most two sentences."}
_ROWS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "nli": [
        {"premise": "Two dogs run along the beach.", "hypothesis": "Animals are outdoors.", "label": "entailment"},
        {"premise": "A man repairs a bicycle.", "hypothesis": "The man is asleep.", "label": "contradiction"},
        {"premise": "A woman reads on the train.", "hypothesis": "She is reading a novel.", "label": "neutral"},
    ],
    "conversation": [
        {"messages": [_SUPPORT, {"role": "user", "content": "My chain jumps on the smallest cog. What is wrong?"}]},
        {
            "messages": [
                _SUPPORT,
                {"role": "user", "content": "Do you rent out cargo bikes?"},
                {"role": "assistant", "content": "Yes, by the day and by the week."},
                {"role": "user", "content": "What does a weekend cost?"},
            ]
        },
    ],
    "qa": [
        {
            "context": "The shop opens at nine on weekdays and at ten on Saturdays.",
            "question": "When does the shop open on Saturdays?",
            "answers": ["ten", "at ten"],
        },
        {"question": "How many spokes does the rear wheel of most road bikes have: more or fewer than ten?", "answer": "more"},
    ],
    "math": [
        {"question": "A tyre costs 24 euros and a tube 6 euros. What do two of each cost?", "answer": "60"},
        {"question": "A rider covers 90 km in 4.5 hours. What is the mean speed in km/h?", "answer": "20"},
    ],
    "summarization": [
        {
            "document": "The town council met on Monday evening. After two hours of debate it voted to build a cycle path "
            "along the river. Work starts in spring and will take eight months. Two members voted against it for its cost.",
            "summary": "The council voted to build a riverside cycle path; work starts in spring and takes eight months.",
        }
    ],
    "classification": [
        {"text": "Where is my parcel? It was due on Tuesday.", "label": "delivery"},
        {"text": "I was charged twice for the same helmet.", "label": "payment"},
        {"text": "Can I exchange these gloves for a larger pair?", "label": "returns"},
    ],
    "text": [
        {"prompt": "Write a two-line advertisement for a bicycle bell."},
        {"prompt": "Explain in one sentence what a derailleur does.", "completion": "It moves the chain between sprockets."},
    ],
}

_JOB = """\
# A distillation job. Before money is spent: potstill check {task}.yaml. Then: potstill run {task}.yaml
task: {task}

# Who answers the rows. This one runs on your machine, without an account; it is small and often wrong.
# Better ones: deepseek-v3, claude-sonnet, llama-3.1-405b, ... or an endpoint of your own:
#   teacher: {{model: my-model, endpoint: https://host/v1, api_key_env: MY_API_KEY, concurrency: 32}}
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

generation: {{temperature: 0.7, max_tokens: {max_tokens}}}

curation:
  deduplicate: near            # or exact, none
  decontaminate: true          # drop what is too close to a held-out row
  verify: auto                 # drop answers that contradict a gold answer; none keeps them

training: {{learning_rate: 2.0e-5, batch_size: 2, num_epochs: 3}}

export: [gguf:q8_0]            # or gguf:f16; the first one is what the report measures
"""
_MAX_TOKENS = {"nli": 16, "classification": 24, "qa": 64}


def write_samples(task: str, folder: Path) -> tuple[Path, Path]:
    """Write TASK.yaml and TASK.jsonl into a folder, which is made where it does not exist.

    Raises:
        InputError: no such task, or one of the files exists already.
        MachineError: the folder cannot be written.
    """
    if task not in _ROWS:
        raise InputError("unknown task", where="potstill init TASK", found=task, expected=", ".join(get_args(TaskName)))
    job, rows = folder / f"{task}.yaml", folder / f"{task}.jsonl"
    for path in (job, rows):
        if path.exists():
            raise InputError("the file exists already", where=str(path), hint="choose another folder with --to DIR")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(rows, "".join(orjson.dumps(row).decode() + "\n" for row in _ROWS[task]))
        write_text(job, _JOB.format(task=task, max_tokens=_MAX_TOKENS.get(task, 512)))
    except OSError as error:
        raise MachineError("the sample files cannot be written", where=str(folder), found=error.strerror) from error
    return job, rows
