"""What makes a model this model: its content, or the place and name by which an endpoint serves it; never a path.

Part of every request's key in the journal and of the stages' fingerprints, so a run folder goes on where it was moved to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill.catalog.model import ResolvedModel
from potstill.digests import file_digest
from potstill.errors import EndpointError, MachineError, MissingExtraError, ModelNotFoundError
from potstill.inference.anthropic import anthropic_identity
from potstill.inference.endpoint import EndpointEngine
from potstill.rows import content_hash

# Of a folder in the hub's layout: what decides how the model answers. Weights are told by their ending.
_DECISIVE = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "special_tokens_map.json",
)
_DOWNLOADED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")


def model_identity(model: ResolvedModel) -> Mapping[str, Any]:
    """The identity of a model; one of the hub is downloaded first, where it is not on this machine yet.

    Raises:
        ModelNotFoundError: the hub has no such model, or cannot be reached.
    """
    if model.kind == "endpoint" and model.engine == "anthropic":
        return anthropic_identity(str(model.endpoint), str(model.model))
    if model.kind == "endpoint":
        return EndpointEngine(str(model.endpoint), str(model.model), None).identity
    if model.kind == "gguf":
        return {"gguf": file_digest(_existing(model))}
    if model.kind == "hub":
        return {"hub": model.model, "commit": local_folder(model).name}
    folder = _existing(model)
    files = [path for path in folder.iterdir() if path.name in _DECISIVE or path.suffix == ".safetensors"]
    return {"folder": content_hash({path.name: file_digest(path) for path in files})}


def local_folder(model: ResolvedModel) -> Path:
    """The folder of a model's weights and tokenizer; one of the hub is downloaded into the hub's own cache.

    Raises:
        MissingExtraError: huggingface_hub, which comes with transformers, is not installed.
        ModelNotFoundError: the hub has no such model, or needs a login for it.
        EndpointError: the hub cannot be reached, and the model is not on this machine.
    """
    return _existing(model) if model.kind == "folder" else _fetch(model, _DOWNLOADED)


def local_config(model: ResolvedModel) -> Path:
    """A folder that holds at least the config.json of a model of the hub: a few kilobytes where it is not here yet.

    Raises:
        As `local_folder`.
    """
    return _fetch(model, ("config.json",))


def cached_folder(model: ResolvedModel) -> Path | None:
    """Where an earlier download of a model of the hub lies, weights included; None where there is none."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        folder = Path(snapshot_download(str(model.model), allow_patterns=list(_DOWNLOADED), local_files_only=True))
    except (HFValidationError, OSError, ValueError):
        return None
    return folder if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) else None


def _fetch(model: ResolvedModel, patterns: Sequence[str]) -> Path:
    try:
        from huggingface_hub import is_offline_mode, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingExtraError("train", "huggingface_hub") from error
    try:
        return Path(snapshot_download(str(model.model), allow_patterns=list(patterns)))
    except LocalEntryNotFoundError as error:
        raise EndpointError(
            "the model is not on this machine, and the hub cannot be reached",
            where=str(model.model),
            found="HF_HUB_OFFLINE is set" if is_offline_mode() else str(error).strip().partition("\n")[0],
            hint="unset HF_HUB_OFFLINE, mend the connection, or name a folder that holds the model",
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise ModelNotFoundError(
            "the model cannot be fetched from the hub",
            where=str(model.model),
            found=str(error).strip().partition("\n")[0],
            expected="a public model, or one that your login may read (hf auth login)",
        ) from error
    except OSError as error:
        where = error.filename or str(model.model)
        raise MachineError("the model cannot be stored", where=where, found=error.strerror) from error


def _existing(model: ResolvedModel) -> Path:
    if model.path is None or not model.path.exists():
        raise ModelNotFoundError("the model is not where it was", where=str(model.path or model.name))
    return model.path
