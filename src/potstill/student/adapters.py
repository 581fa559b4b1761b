"""Low-rank adapters (Hu et al. 2021, "LoRA", arXiv:2106.09685): train few weights, merge them into the model after."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson

from potstill.errors import MissingExtraError
from potstill.spec import AdapterSpec


def attach_adapter(network: Any, spec: AdapterSpec) -> Any:
    """The network with a low-rank adapter on every linear layer but the head; only the adapter is trained.

    The adapter's second matrix starts at zero, so the network's answers do not change. `alpha` defaults to twice the rank.

    Raises:
        MissingExtraError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError("train", "peft") from error
    return get_peft_model(
        network,
        LoraConfig(
            task_type="CAUSAL_LM", r=spec.r, lora_alpha=spec.alpha or 2 * spec.r, lora_dropout=spec.dropout,
            target_modules="all-linear",
        ),
    )


def merge_adapter(network: Any, adapter: Path) -> Any:
    """The network with a saved adapter (a folder with adapter_model.safetensors) added to its weights."""
    from peft import PeftModel

    return PeftModel.from_pretrained(network, adapter).merge_and_unload()


def save_adapter(source: Path, target: Path) -> None:
    """Copy a saved adapter, without the path of the model it was trained on: elsewhere that path leads nowhere."""
    target.mkdir(parents=True, exist_ok=True)
    settings = orjson.loads((source / "adapter_config.json").read_bytes())
    settings["base_model_name_or_path"] = None
    (target / "adapter_config.json").write_bytes(orjson.dumps(settings, option=orjson.OPT_INDENT_2))
    shutil.copyfile(source / "adapter_model.safetensors", target / "adapter_model.safetensors")
