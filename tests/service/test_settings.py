"""Settings: the environment over a file over defaults; what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.errors import InputError
from potstill.service.settings import load_settings


def test_defaults(place: Path) -> None:
    settings = load_settings()
    assert settings.home == place / "home"
    assert settings.database_url == f"sqlite:///{place / 'home' / 'potstill.db'}"
    assert (settings.runs, settings.max_parallel_jobs) == (place / "runs", 1)
    assert settings.host


def test_a_file_above_the_current_folder_is_found_and_its_paths_start_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "potstill.yaml").write_text("runs: work\nmax_parallel_jobs: 3\n")
    below = place / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    settings = load_settings()
    assert (settings.runs, settings.max_parallel_jobs) == (place / "work", 3)


def test_the_environment_comes_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "potstill.yaml").write_text("database_url: sqlite:///file.db\nmax_parallel_jobs: 3\nruns: work\n")
    monkeypatch.setenv("POTSTILL_DATABASE_URL", "sqlite:///environment.db")
    monkeypatch.setenv("POTSTILL_MAX_PARALLEL_JOBS", "2")
    monkeypatch.setenv("POTSTILL_RUNS", str(place / "elsewhere"))
    settings = load_settings()
    assert (settings.database_url, settings.max_parallel_jobs) == ("sqlite:///environment.db", 2)
    assert settings.runs == place / "elsewhere"


def test_another_process_gets_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "potstill.yaml").write_text("runs: work\nmax_parallel_jobs: 3\n")
    settings = load_settings()
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    (place / "potstill.yaml").unlink()
    assert load_settings() == settings


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_parallel_jobs: none", "max_parallel_jobs"),
        ("max_parallel_jobs: 0", "max_parallel_jobs"),
        ("database_url: mysql://host/db", "postgresql://user@host"),
        ("databas_url: sqlite:///x.db", "unknown key 'databas_url'"),
        ("- runs", "no mapping"),
    ],
)
def test_a_wrong_file_is_named(place: Path, text: str, says: str) -> None:
    (place / "potstill.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        load_settings()
    assert says in str(error.value)
    assert str(place / "potstill.yaml") in str(error.value.where)


def test_a_wrong_variable_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_MAX_PARALLEL_JOBS", "many")
    with pytest.raises(InputError) as error:
        load_settings()
    assert "POTSTILL_MAX_PARALLEL_JOBS" in str(error.value.where)


def test_a_file_that_is_named_has_to_be_there(place: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_settings(place / "other.yaml")
    with pytest.raises(InputError, match="does not exist"):
        load_settings(place)


def test_a_password_is_not_shown(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_DATABASE_URL", "postgresql://me:hunter2@host/db")
    assert "hunter2" not in repr(load_settings())
    monkeypatch.setenv("POTSTILL_DATABASE_URL", "mysql://me:hunter2@host/db")
    with pytest.raises(InputError) as error:
        load_settings()
    assert "hunter2" not in str(error.value)
