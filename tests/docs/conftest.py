"""A reader of the documentation, with the models of the catalogue at hand on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.world import KEY, Reader, key_variables, teacher_of, user_catalogue
from loopback import serve_in_thread


@pytest.fixture
def reader(tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    folder = tmp_path / "work"
    folder.mkdir()
    with serve_in_thread(teacher_of(lambda: folder)) as server:
        catalogue = tmp_path / "catalogue.yaml"
        catalogue.write_text(user_catalogue(server.base_url, tiny_student))
        monkeypatch.setenv("POTSTILL_CATALOG", str(catalogue))
        monkeypatch.setenv("COLUMNS", "120")
        for name in key_variables():
            monkeypatch.setenv(name, KEY)
        monkeypatch.chdir(folder)
        yield Reader(folder, monkeypatch)
