"""API keys: from the environment, or from the system keyring; never from a file, never into one."""

from __future__ import annotations

import os

import orjson

from potstill.catalog.model import ResolvedModel
from potstill.errors import MissingKeyError

KEYRING_SERVICE = "potstill"
_STRUCK_OUT = "[api key]"


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


def strike_out(body: bytes, status: int, key: str | None) -> bytes:
    """A reply without the key. In answers only keys long enough to be real: "EMPTY" may be a word of one."""
    if not key or (status == 200 and len(key) < 16):
        return body
    struck_out, escaped = _STRUCK_OUT.encode(), orjson.dumps(key)[1:-1]
    return body.replace(key.encode(), struck_out).replace(escaped, struck_out)


def clean(text: str, key: str | None) -> str:
    """A message without the key."""
    return text.replace(key, _STRUCK_OUT) if key else text


def _from_keyring(name: str) -> str | None:
    import keyring
    from keyring.errors import KeyringError

    try:
        key: str | None = keyring.get_password(KEYRING_SERVICE, name)
    except KeyringError:  # a machine without a keyring has no key in it
        return None
    return key
