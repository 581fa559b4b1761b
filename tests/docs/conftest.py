"""A reader of the documentation, with the models of the catalogue at hand on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.programs import install
from docs.world import KEY, Reader, key_variables, teacher_of, user_catalogue
from loopback import serve_in_thread

END_OF_TURN = 2
LEANING = 1.09  # a little above 1: about every second step the end of the turn is the likeliest token


@pytest.fixture(scope="session")
def brief_student(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student, made to end its turn after a few tokens, whatever the limit: pages do not set one for its sake.

    One feature is the same for all tokens, a little larger for the end of a turn, and so adds to its logit at every place.
    """
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("brief") / "student"
    shutil.copytree(tiny_student, folder)
    weights = load_file(folder / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    embedding[:, 0] = 1.0
    embedding[END_OF_TURN, 0] = LEANING
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def reader(tmp_path: Path, brief_student: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    folder = tmp_path / "work"
    folder.mkdir()
    with serve_in_thread(teacher_of(lambda: folder)) as server:
        catalogue = tmp_path / "catalogue.yaml"
        catalogue.write_text(user_catalogue(server.base_url, brief_student))
        monkeypatch.setenv("POTSTILL_CATALOG", str(catalogue))
        monkeypatch.setenv("POTSTILL_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("COLUMNS", "120")
        for name in key_variables():
            monkeypatch.setenv(name, KEY)
        monkeypatch.chdir(folder)
        install(tmp_path / "programs")
        yield Reader(folder, monkeypatch, tmp_path / "programs")
