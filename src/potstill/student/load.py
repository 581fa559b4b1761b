"""Open a model and write it as an untrained student.

In: a resolved model (a GGUF file, a folder or a hub id). Out: a folder in the hub's layout with config.json,
model.safetensors, the tokenizer, its chat template and generation_config.json. A GGUF file's blocks are unpacked to float32;
other weights keep their type. What it costs: the model once in memory. Nothing is unpickled, and a model's own code runs only
where the user trusts it.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from potstill.catalog.model import ResolvedModel
from potstill.errors import InputError, MachineError, MissingExtraError
from potstill.gguf_metadata import read_metadata
from potstill.inference import model_identity
from potstill.quiet import quiet_transformers
from potstill.spec import ShrinkSpec
from potstill.student.gguf_reading import gguf_read_once
from potstill.student.origin import write_origin
from potstill.student.splitting import apply_rule, splitting_rule
from potstill.templates import ChatTemplate

_SPECIAL_TOKENS = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding"}


def build_student(model: ResolvedModel, out_dir: Path, *, shrink: ShrinkSpec | None, calibration: Sequence[str] = ()) -> None:
    """Write the untrained student to `out_dir`, which must not exist or be empty; it appears there whole or not at all.

    Args:
        model: Where the weights are; an endpoint has none to give.
        out_dir: The folder to be.
        shrink: How many layers to keep; None keeps all.
        calibration: Rendered texts by which the layers to drop are chosen; without any, evenly spaced ones are kept.

    Raises:
        MissingExtraError: torch, transformers or, for a GGUF file, gguf is not installed.
        InputError: the model cannot be opened, is of an unknown kind, has no chat template, or has fewer layers than asked for.
        MachineError: the student cannot be written.
    """
    _check_installed(model)
    draft = out_dir.with_name(f".{out_dir.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with quiet_transformers(), gguf_read_once() if model.kind == "gguf" else nullcontext():
            tokenizer, network = open_model(model)
            kept = None if shrink is None else _shrink(network, tokenizer, shrink.layers, calibration)
            if model.kind == "gguf":
                network = _unquantised(network)
            _write(tokenizer, network, draft)
            if kept is not None:
                write_origin(draft, model_identity(model), kept)
        draft.replace(out_dir)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check_installed(model: ResolvedModel) -> None:
    extra = "train"
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401

        if model.kind == "gguf":
            extra = "export"
            import gguf  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(extra, error.name or "transformers") from error


def open_model(model: ResolvedModel, *, role: str = "student") -> tuple[Any, Any]:
    """The tokenizer and the network (a causal language model of transformers, in evaluation mode, on the CPU).

    `role` says in errors what the model is to be.

    Raises:
        InputError: the weights are not at hand, or transformers cannot open them; a tokenizer without chat template,
            without a tokenizer.json, or with a splitting rule that is unknown here.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    source, options = _source(model, role)
    weights = {"dtype": "float32"} if model.kind == "gguf" else {"dtype": "auto", "use_safetensors": True}
    try:
        tokenizer = open_tokenizer(model, role=role)
        _check_tokenizer(tokenizer, model, role)
        network = AutoModelForCausalLM.from_pretrained(source, **options, **weights)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        hint = "if you trust its authors, set trust_remote_code: true" if "trust_remote_code" in str(error) else None
        raise InputError(
            f"the {role} cannot be opened", where=model.name, found=str(error).strip().partition("\n")[0],
            expected="a causal language model that transformers knows, with safetensors weights or as GGUF", hint=hint,
        ) from error
    return tokenizer, network.eval()


def open_tokenizer(model: ResolvedModel, *, role: str = "student") -> Any:
    """The tokenizer of transformers; that of a GGUF file splits text and ends turns as the file says.

    Raises:
        InputError: the model is not at hand, or its file names a splitting rule that is unknown here.
        OSError, ValueError, ...: what transformers raises where it cannot open it.
    """
    from transformers import AutoTokenizer

    source, options = _source(model, role)
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    if model.kind == "gguf" and model.path is not None:
        _as_the_file_says(tokenizer, model.path)
    return tokenizer


def _source(model: ResolvedModel, role: str) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` is given."""
    if model.kind == "endpoint":
        raise InputError(
            f"this {role} must be a model whose weights are at hand", where=model.name, found="an endpoint",
            expected="a hub id, a folder or a .gguf file",
        )
    if model.kind == "hub":
        return str(model.model), {"trust_remote_code": model.trust_remote_code}
    if model.path is None or not model.path.exists():
        raise InputError(f"the {role}'s model does not exist", where=str(model.path or model.name))
    if model.kind == "gguf":
        return str(model.path.parent), {"gguf_file": model.path.name}
    return str(model.path), {"trust_remote_code": model.trust_remote_code}


def _check_tokenizer(tokenizer: Any, model: ResolvedModel, role: str) -> None:
    if not tokenizer.chat_template:
        raise InputError(
            f"the {role}'s tokenizer has no chat template", where=model.name, found="a base model",
            expected="a model trained to chat", hint="choose the model's instruct version",
        )
    if not tokenizer.is_fast:
        raise InputError(
            f"the {role}'s tokenizer cannot be written as tokenizer.json", where=model.name, found=type(tokenizer).__name__,
            expected="a tokenizer of the tokenizers library",
        )


def _write(tokenizer: Any, network: Any, folder: Path) -> None:
    from safetensors import SafetensorError

    network.config._name_or_path = ""  # a path of this machine would not be true elsewhere
    try:
        folder.mkdir(parents=True)
        tokenizer.save_pretrained(folder)
        _stop_at_end_of_turn(network, tokenizer, ChatTemplate.from_folder(folder))
        network.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise MachineError("the student cannot be written", where=str(folder.parent), found=error) from error


def _as_the_file_says(tokenizer: Any, path: Path) -> None:
    """Transformers takes GPT-2's rule for every name it does not know, SmolLM's among them, and 5.17 another end token."""
    rule = splitting_rule(path)
    if rule is None or not tokenizer.is_fast:
        return
    apply_rule(tokenizer.backend_tokenizer, rule)
    keys = {kind: f"tokenizer.ggml.{name}_token_id" for kind, name in _SPECIAL_TOKENS.items()}
    ids = read_metadata(path, set(keys.values()))
    for kind, key in keys.items():
        if isinstance(ids.get(key), int):
            setattr(tokenizer, kind, tokenizer.convert_ids_to_tokens(ids[key]))


def _shrink(network: Any, tokenizer: Any, count: int, calibration: Sequence[str]) -> list[int]:
    """Drop layers, and with calibration texts heal what is left of it; gives the layers kept."""
    from potstill.student.healing import heal, record
    from potstill.student.processor import layers_multiply_fast
    from potstill.student.shrink import calibration_ids, choose_layers, keep_layers

    texts = calibration_ids(tokenizer, calibration)
    with layers_multiply_fast(network):
        kept = choose_layers(network, texts, count)
        recording = record(network, texts, kept) if texts else None
        keep_layers(network, kept)
        if recording is not None:
            heal(network, recording)
    return kept


def _unquantised(network: Any) -> Any:
    """The same weights in a model that does not count as quantised; transformers refuses to save the other."""
    import torch
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(network.config)
    del config.quantization_config
    with torch.device("meta"):  # no memory and no time for random weights that are replaced at once
        plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(network.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = network.generation_config
    return plain


def _stop_at_end_of_turn(network: Any, tokenizer: Any, template: ChatTemplate) -> None:
    """Generation stops where a turn ends, also for models whose own settings name another end only."""
    end = tokenizer.convert_tokens_to_ids(template.end_of_turn)
    stops = network.generation_config.eos_token_id
    known = [stops] if isinstance(stops, int) else list(stops or [])
    if isinstance(end, int) and end != tokenizer.unk_token_id and end not in known:
        network.generation_config.eos_token_id = [end, *known]
