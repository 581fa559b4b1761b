"""A key comes from the environment, else from the keyring; and no error shows it."""

from __future__ import annotations

from collections.abc import Iterator

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring

from potstill.catalog.model import ResolvedModel
from potstill.errors import MissingKeyError
from potstill.inference import endpoint_key

VARIABLE = "POTSTILL_TEST_API_KEY"
MODEL = ResolvedModel("deepseek-v3", "endpoint", model="deepseek-chat", endpoint="https://host/v1", api_key_env=VARIABLE)


class MemoryKeyring(KeyringBackend):
    """Passwords in a dictionary; notes what it was asked for."""

    priority = 1.0  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.passwords: dict[tuple[str, str], str] = {}
        self.asked: list[tuple[str, str]] = []

    def get_password(self, service: str, username: str) -> str | None:
        self.asked.append((service, username))
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.passwords[service, username] = password


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryKeyring]:
    monkeypatch.delenv(VARIABLE, raising=False)
    before, ring = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


def test_the_environment_wins_and_the_keyring_is_not_asked(memory: MemoryKeyring, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring.set_password("potstill", VARIABLE, "sk-from-the-keyring")
    monkeypatch.setenv(VARIABLE, " sk-from-the-environment\n")  # as `export KEY=$(cat file)` may leave it
    assert endpoint_key(MODEL) == "sk-from-the-environment"
    assert memory.asked == []


@pytest.mark.parametrize("environment", [None, "", "  "])
def test_else_the_keyring_is_asked(memory: MemoryKeyring, monkeypatch: pytest.MonkeyPatch, environment: str | None) -> None:
    if environment is not None:
        monkeypatch.setenv(VARIABLE, environment)
    keyring.set_password("potstill", VARIABLE, "sk-from-the-keyring")
    assert endpoint_key(MODEL) == "sk-from-the-keyring"
    assert memory.asked == [("potstill", VARIABLE)]


def test_a_missing_key_names_the_variable_and_no_value(memory: MemoryKeyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE + "_OLD", "sk-secret-of-another-variable")
    keyring.set_password("another-service", VARIABLE, "sk-secret-of-another-service")
    with pytest.raises(MissingKeyError, match="deepseek-v3 is missing") as caught:
        endpoint_key(MODEL)
    assert caught.value.where == f"environment variable {VARIABLE}"
    assert f"python -m keyring set potstill {VARIABLE}" in str(caught.value)
    assert "sk-secret" not in str(caught.value.as_json())


@pytest.mark.usefixtures("memory")
def test_a_machine_without_a_keyring_has_no_key_in_it() -> None:
    keyring.set_keyring(NoKeyring())
    with pytest.raises(MissingKeyError):
        endpoint_key(MODEL)


def test_an_endpoint_without_a_key(memory: MemoryKeyring) -> None:
    assert endpoint_key(ResolvedModel("own", "endpoint", model="m", endpoint="http://127.0.0.1:8080/v1")) is None
    assert memory.asked == []
