"""Rows and models of the benchmarks of training: what a teacher answered, the teacher as a folder, an untrained student.

The prompts are the first of each split of bitext (POTSTILL_DATA names the folder of the data sets; see tests/conftest.py), the
teacher is the embedded model, asked through llama.cpp for short answers: a row has about 80 tokens, 45 of them the answer. All
of it lies in one folder. Replies are kept in a journal in there, so that nothing is asked twice, whatever number of rows is
asked for. In a process of its own: `training_data.py FOLDER TRAIN VALIDATION TEST`, with the numbers of rows; the last line it
prints is JSON, with the files and what they hold.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import islice
from pathlib import Path

from potstill.catalog import resolve
from potstill.generation import RejectedRow
from potstill.pipeline.asking import answers_in_order
from potstill.pipeline.untouched import CALIBRATION_ROWS, build_initial_student
from potstill.rows import Message, Row, read_rows, write_rows
from potstill.spec import GenerationSpec, ModelSpec, ShrinkSpec
from potstill.student.shrink import decoder_layers
from potstill.tasks import get_task
from potstill.tasks.reading import read_rows_of
from potstill.templates import ChatTemplate
from potstill.training.collator import tokenise_rows

ROOT = Path(__file__).resolve().parent.parent.parent
PROMPTS = (ROOT / os.environ.get("POTSTILL_DATA", "../shared/data")).resolve() / "conversation"
SPLITS = ("train", "validation", "test")
TEACHER = "smollm2-135m-instruct"
INSTRUCTION = "Answer in one or two short sentences."
MAX_TOKENS = 96
LAYERS = 8


def answered(folder: Path, split: str, count: int) -> Path:
    """A file with the first `count` rows of a split that the teacher answered.

    Raises:
        SystemExit: the split has fewer.
    """
    file = folder / f"{split}-{count}.jsonl"
    longer = [other for other in folder.glob(f"{split}-*.jsonl") if int(other.stem.rpartition("-")[2]) > count]
    if not file.exists() and longer:
        write_rows(file, islice(read_rows(longer[0]), count))
    if not file.exists():
        task = get_task("text")
        source = read_rows_of(PROMPTS / f"bitext.{split}.jsonl", get_task("conversation"), on_bad_row="fail").rows
        asked = [
            Row(f"{split}-{number}", (Message("system", INSTRUCTION), row.messages[0]))
            for number, row in enumerate(islice(source, count + count // 20 + 4))
        ]
        settings = GenerationSpec(max_tokens=MAX_TOKENS)
        outcomes = answers_in_order(resolve(ModelSpec(model=TEACHER)), task, asked, settings, folder / "journal", told)
        rows = [outcome[0] for outcome in outcomes if not isinstance(outcome, RejectedRow)][:count]
        if len(rows) < count:
            raise SystemExit(f"{split}: {len(rows)} answers, and {count} are needed")
        write_rows(file, rows)
    return file


def told(done: int, total: int) -> None:
    if done % 50 == 0:
        print(f"  {done} of {total} answers", file=sys.stderr, flush=True)


def models(folder: Path) -> tuple[Path, Path]:
    """The teacher's weights, unpacked to float32, and a student of eight of its layers, chosen and healed on training rows."""
    teacher, student = folder / "teacher", folder / "student"
    if not (teacher / "config.json").exists():
        build_initial_student(resolve(ModelSpec(model=TEACHER)), teacher, None, [])
    if not (student / "config.json").exists():
        rows = read_rows(answered(folder, "train", CALIBRATION_ROWS))
        build_initial_student(resolve(ModelSpec(path=str(teacher))), student, ShrinkSpec(layers=LAYERS), rows)
    return teacher, student


def sizes(teacher: Path, student: Path, rows: Path) -> dict[str, int]:
    """What a training on these rows multiplies: tokens without padding, answer tokens; weights of layers, head and all."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    template, tokenizer = ChatTemplate.from_folder(student), AutoTokenizer.from_pretrained(student)
    texts = tokenise_rows(list(read_rows(rows)), template, tokenizer, all_turns=False, max_length=10**6)
    told = {"tokens": texts.tokens, "answer_tokens": texts.target_tokens}
    for name, folder in (("teacher", teacher), ("student", student)):
        network = AutoModelForCausalLM.from_pretrained(folder)
        matrices = [weight for layer in decoder_layers(network) for weight in layer.parameters() if weight.dim() == 2]
        told[f"{name}_trunk_weights"] = sum(weight.numel() for weight in matrices)
        told[f"{name}_head_weights"] = network.get_output_embeddings().weight.numel()
        told[f"{name}_weights"] = sum(weight.numel() for weight in network.parameters())
    return told


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    teacher_folder, student_folder = models(place)
    files = {name: answered(place, name, int(number)) for name, number in zip(SPLITS, sys.argv[2:], strict=True)}
    told_of = {name: str(path) for name, path in files.items()}
    told_of |= {"teacher": str(teacher_folder), "student": str(student_folder)}
    print(json.dumps({**told_of, **sizes(teacher_folder, student_folder, files["train"])}))
