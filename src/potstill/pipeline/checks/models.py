"""Teacher and student: whether they are there, whole, fit for their part, and small enough for this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from potstill.catalog import ResolvedModel
from potstill.errors import CorruptFileError, ExportError, InputError, MissingExtraError, PotstillError
from potstill.pipeline.checks.seen import Seen, Told, as_files
from potstill.student.splitting import splitting_rule
from potstill.templates import ChatTemplate

_DROPPABLE = re.compile(r"(^|\.)(model|language_model)\.layers\.\d")  # weights of layers that can be dropped
_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX")}  # any of them serves
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def look_at_teacher(seen: Seen) -> Iterator[Told]:
    """Its key, or its files, and whether it can be asked as the job wants; of several teachers, those of each."""
    temperature = seen.job.generation.temperature
    for teacher in seen.teachers:
        if teacher.engine == "anthropic" and temperature > 1:
            raise InputError(
                "Claude models take no temperature above 1", where="generation.temperature", found=temperature, expected="0..1"
            )
        yield from look_at_model(teacher)
    first: dict[tuple[object, ...], str] = {}
    for one in seen.teachers:
        other = first.setdefault((one.kind, one.model, one.endpoint, one.path), one.name)
        if other != one.name:
            yield InputError("two teachers are the same model", found=f"{other} and {one.name}", expected="each model once",
                             hint="for several answers of one teacher set generation.samples")


def look_at_student(seen: Seen) -> Iterator[Told]:
    """Its files, and whether it has the layers that are asked for."""
    model, shrink = seen.student, seen.job.student.shrink
    if model.kind == "endpoint":
        raise InputError(
            "a student has to be a model with weights", found=f"the endpoint {shown_address(model)}",
            expected="a hub id, a folder or a .gguf file",
        )
    yield from look_at_model(model)
    files = seen.student_files
    if files is not None and files.kind == "gguf":
        splitting_rule(Path(str(files.path)))
    if shrink is None or files is None:
        return
    from potstill.evaluation.model_size import count_layers, tensor_names

    layers = count_layers(files)
    if files.kind == "folder" and not any(_DROPPABLE.search(name) for name in tensor_names(Path(str(files.path)))):
        yield InputError(
            "layers of this architecture cannot be dropped", where="student.shrink", found=str(files.path),
            expected="a decoder such as Llama, Qwen, Mistral, Gemma or Phi-3",
        )
    if layers is not None and shrink.layers > layers:
        yield InputError(
            "the student has fewer layers than asked for", where="student.shrink.layers", found=shrink.layers,
            expected=f"1..{layers}",
        )


def look_at_hub(seen: Seen) -> Iterator[Told]:
    """Whether the hub has the models that are not on this machine yet; a few kilobytes are fetched."""
    from potstill.inference.identity import local_config

    models = [*seen.teachers, *([seen.student] if seen.trains else []), *([seen.judge] if seen.judge is not None else [])]
    for model in {model.model: model for model in models}.values():
        if model.kind != "hub" or as_files(model) is not None:
            continue
        folder = local_config(model)
        if model is seen.student and seen.job.export.formats and find_spec("gguf") is not None:
            from potstill.exporting.gguf import check_architecture, read_config

            try:
                check_architecture(read_config(folder))
            except ExportError as error:
                raise _not_exportable(error) from error
        yield f"{model.model} can be downloaded"


def look_at_extras(seen: Seen) -> Iterator[Told]:
    """Whether all parts of Potstill are installed that the job needs."""
    job = seen.job
    models = [model for model in (*seen.teachers, seen.judge) if model is not None]
    kinds = {model.kind for model in models if not model.served}
    needed = {"xllamacpp": "local"} if "gguf" in kinds else {}
    if any(model.engine == "anthropic" for model in models):
        needed["anthropic"] = "anthropic"
    if any(model.kind == "hub" and model.served for model in models):
        needed["huggingface_hub"] = "train"
    if seen.trains or kinds & {"folder", "hub"}:
        needed |= {"torch": "train", "transformers": "train"}
    if seen.trains:
        needed["accelerate"] = "train"
    if seen.corrects:
        needed |= {"torch": "train", "transformers": "train", "accelerate": "train"}
        needed |= {"gguf": "export"} if "gguf" in kinds else {}
    if (seen.trains and job.student.adapter is not None) or (seen.corrects and job.correction and job.correction.adapter):
        needed["peft"] = "train"
    if seen.trains and job.export.formats:
        needed |= {"gguf": "export", "xllamacpp": "local"}
    missing: dict[str, str] = {}
    for module, extra in needed.items():
        if find_spec(module) is None:
            missing.setdefault(extra, module)
    for extra, module in missing.items():
        yield MissingExtraError(extra, module)
    trackers = [name for name in job.training.trackers if not any(map(find_spec, _PACKAGES.get(name, (name,))))]
    for name in trackers:
        yield InputError(
            "a tracker is not installed", where="key 'training.trackers' of the job file", found=name,
            hint=f"pip install {name}",
        )
    if not missing and not trackers:
        if seen.trains and (job.training.launch is not None or job.training.processes not in ("auto", 1)):
            from potstill.training.launching import launch_of

            launch_of(job.training)  # looks for the GPUs and the file
        yield "all that this job needs"


def look_at_export(seen: Seen) -> Iterator[Told]:
    """Whether the student can be written in the formats asked for: that shows only after the teacher was paid."""
    formats = seen.job.export.formats
    if not seen.trains:
        return
    if not formats or find_spec("gguf") is None:
        yield "nothing asked for" if not formats else "unknown until the extra is installed"
        return
    model = seen.student_files
    if model is None:
        yield "unknown until the student is downloaded"
        return
    try:
        _check_exportable(model)
    except (ExportError, CorruptFileError) as error:
        raise _not_exportable(error) from error
    yield ", ".join(formats)


def _check_exportable(model: ResolvedModel) -> None:
    from potstill.exporting.gguf import check_exportable, check_family

    path = Path(str(model.path))
    if model.kind == "gguf":
        check_family(path)
    else:
        check_exportable(path)


def _not_exportable(error: PotstillError) -> InputError:
    return InputError(
        f"the student cannot be exported: {error.what}", where=error.where, found=error.found, expected=error.expected,
        hint=error.hint or "choose another student, or export: [] to keep the weights alone",
    )


def look_at_model(model: ResolvedModel) -> Iterator[Told]:
    """What a model is; for one on this machine after a look at its files."""
    if model.kind == "endpoint":
        from potstill.inference import endpoint_key

        endpoint_key(model)
        yield f"{model.name}: {model.model} at {shown_address(model)}"
        return
    if model.engine in ("vllm", "sglang"):
        from potstill.inference.server import server_program

        server_program(model.engine)
    files = as_files(model)
    problems = list(_problems(files)) if files is not None and files.path is not None else []
    if problems:
        yield from problems
    elif model.kind == "hub":
        yield f"{model.name}: {model.model} of the hub"
    else:
        yield f"{model.name}: {Path(str(model.path)).name}"


def shown_address(model: ResolvedModel) -> str:
    """An endpoint's address without the user name, password and query that its catalogue entry may hold."""
    from potstill.inference import model_identity

    return str(model_identity(model)["endpoint"])


def _problems(model: ResolvedModel) -> Iterator[InputError]:
    """What is wrong with the files of a model: template, weights, configuration."""
    from potstill.evaluation.model_size import count_parameters

    path = Path(str(model.path))
    try:
        _template(path)
    except InputError as error:
        yield error
    if path.is_dir() and not any(path.glob("*.safetensors")):
        yield InputError("the model has no weights", where=str(path), expected="one or more .safetensors files")
        return
    try:
        count_parameters(model)
    except CorruptFileError as error:
        yield InputError(error.what, where=error.where, found=error.found, expected=error.expected, hint="fetch it again")
    if path.is_dir():
        yield from _folder_problems(path)


def _template(path: Path) -> ChatTemplate:
    return ChatTemplate.from_gguf(path) if path.suffix.lower() == ".gguf" else ChatTemplate.from_folder(path)


def _folder_problems(folder: Path) -> Iterator[InputError]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))  # resolving it has read it
    if not config.get("model_type"):
        yield InputError(
            "the model's config.json does not say what kind of model it is", where=str(folder / "config.json"),
            found="no model_type", expected="model_type, such as llama or qwen2",
        )
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        yield InputError("the model has no tokenizer", where=str(folder), expected="tokenizer.json")
    problem = _tokenizer_problem(folder / "tokenizer.json")
    if problem is not None:
        yield InputError("the tokenizer cannot be read", where=str(folder / "tokenizer.json"), found=problem)


def _tokenizer_problem(path: Path) -> str | None:
    if not path.is_file() or find_spec("tokenizers") is None:
        return None
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001  (the library raises this very class)
        return str(error)
    return None
