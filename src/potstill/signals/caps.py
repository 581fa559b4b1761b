"""Models that cap their logits after the head: their distributions are not linear in the last hidden state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.errors import InputError

_NAMES = ("final_logit_softcapping", "logits_soft_cap", "softcap")  # under which configurations have the cap


def cap_of(config: Mapping[str, Any]) -> str | None:
    """The cap that a configuration names, such as "final_logit_softcapping: 30.0"; None where it names none."""
    settings = config.get("text_config") or config
    return next((f"{name}: {settings[name]}" for name in _NAMES if settings.get(name)), None)


def not_linear(found: str) -> InputError:
    """The error for a teacher whose signals cannot be made from its hidden states."""
    return InputError(
        "this teacher changes its logits after the head, so its distributions cannot be made from its hidden states",
        where="teacher", found=found, expected="logits that are a matrix times the last hidden state",
        hint="training.method: sft trains on its text alone; or ask it through an endpoint that tells log-probabilities",
    )
