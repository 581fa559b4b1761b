"""The best checkpoint of a training becomes the student."""

from __future__ import annotations

import shutil
from pathlib import Path

from potstill.errors import CorruptFileError, MachineError
from potstill.student.adapters import merge_adapter, save_adapter

_WEIGHTS = (".safetensors", ".safetensors.index.json")
_BESIDE_WEIGHTS = {".json", ".jinja", ".txt", ".model", ".py"}


def publish(student_dir: Path, best: Path, out_dir: Path, *, has_adapter: bool) -> None:
    """Write the best checkpoint's weights and the student's own settings, to a temporary folder and then file by file."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.from_pretrained(student_dir)
    start = student_dir if has_adapter else best
    try:
        network = AutoModelForCausalLM.from_pretrained(start, config=config, dtype="float32", use_safetensors=True)
    except SafetensorError as error:
        raise unreadable(start, error) from error
    if has_adapter:
        network = merge_adapter(network, best)
    if (student_dir / "generation_config.json").is_file():
        network.generation_config = GenerationConfig.from_pretrained(student_dir)
    draft = out_dir / ".final"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        network.to(config.dtype).save_pretrained(draft)
    except SafetensorError as error:  # its own class for a full disk, too
        shutil.rmtree(draft, ignore_errors=True)
        raise MachineError("the student cannot be written", where=str(out_dir), found=error) from error
    for file in sorted(student_dir.iterdir()):
        if file.suffix in _BESIDE_WEIGHTS and not file.name.endswith(_WEIGHTS) and not (draft / file.name).exists():
            shutil.copyfile(file, draft / file.name)
    if has_adapter:
        save_adapter(best, out_dir / "adapter")
    for file in sorted(draft.iterdir(), key=lambda file: file.name.endswith(_WEIGHTS)):  # the weights last
        file.replace(out_dir / file.name)
    draft.rmdir()


def unreadable(folder: Path, error: Exception) -> CorruptFileError:
    return CorruptFileError(
        "the student's weights cannot be read", where=str(folder), found=error,
        hint="delete the folder if it lies in the run folder: it is built again; else fetch it again",
    )
