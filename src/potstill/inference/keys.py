"""API keys: from the environment, or from the system keyring; never from a file, never into one."""

from __future__ import annotations

import os

from potstill.catalog.model import ResolvedModel
from potstill.errors import MissingKeyError

KEYRING_SERVICE = "potstill"


def endpoint_key(model: ResolvedModel) -> str | None:
    """The key of an endpoint; None where it needs none.

    Raises:
        MissingKeyError: the model names a variable, and neither the environment nor the keyring has it.
    """
    name = model.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip() or _from_keyring(name)
    if not key:
        raise MissingKeyError(
            f"the API key of {model.name} is missing",
            where=f"environment variable {name}",
            hint=f"export {name}=..., or store it once: python -m keyring set {KEYRING_SERVICE} {name}",
        )
    return key


def _from_keyring(name: str) -> str | None:
    import keyring
    from keyring.errors import KeyringError

    try:
        key: str | None = keyring.get_password(KEYRING_SERVICE, name)
    except KeyringError:  # a machine without a keyring has no key in it
        return None
    return key
