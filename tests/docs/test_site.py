"""The site as it is built: without a warning, readable without a network, and saying what the program says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from docs.pages import ROOT
from potstill.catalog.entry import read_catalog
from potstill.cli import app
from potstill.spec import JobSpec, TaskName

FROM_ELSEWHERE = re.compile(r"""<(?:script|img|iframe)[^>]+src=["']?(?:https?:)?//|<link[^>]+href=["']?(?:https?:)?//""")
TAG = re.compile(r"<[^>]+>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a broken link or anchor, or a page outside the navigation, ends the build."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def cells(page: Path) -> set[str]:
    """The text of all cells of all tables of a page."""
    found = re.findall(r"<td[^>]*>(.*?)</td>", page.read_text(encoding="utf-8"), re.DOTALL)
    return {unescape(TAG.sub("", cell)).strip() for cell in found}


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not FROM_ELSEWHERE.search(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_page_can_be_searched(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_bytes())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    pages = {page.relative_to(site).as_posix() for page in site.rglob("*.html")} - {"404.html"}
    assert found == pages


def test_no_page_holds_what_is_only_for_making_it(site: Path) -> None:
    assert not list(site.rglob("*.py"))
    assert not [page for page in site.rglob("*.html") if "<!-- made:" in page.read_text(encoding="utf-8")]


def keys_of(schema: dict[str, Any], part: dict[str, Any]) -> Iterator[str]:
    """Every key of a JSON Schema, those of sections within sections too."""
    for key, value in part.get("properties", {}).items():
        yield key
        options = [value, *value.get("anyOf", []), *value.get("allOf", [])]
        for option in options:
            if "$ref" in option:
                yield from keys_of(schema, schema["$defs"][option["$ref"].rpartition("/")[2]])


def test_every_key_of_a_job_is_in_the_reference(site: Path) -> None:
    schema = JobSpec.model_json_schema()
    shown = cells(site / "reference" / "job-file.html")
    assert set(keys_of(schema, schema)) - shown == set()
    assert {"≥ 0, ≤ 2", "2.0e-05", "[teacher, baseline, distilled]"} <= {cell.removeprefix("number ") for cell in shown}


def test_every_command_is_in_the_reference(site: Path) -> None:
    import typer

    def names(prefix: str, command: Any) -> Iterator[str]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield prefix
        for key, each in (inner or {}).items():
            yield from names(f"{prefix} {key}", each)

    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    headings = {unescape(TAG.sub("", text)).rstrip("¶") for text in re.findall(r"<h2[^>]*>(.*?)</h2>", page)}
    assert headings == set(names("potstill", typer.main.get_command(app)))


def test_every_name_of_the_catalogue_is_in_its_table(site: Path) -> None:
    ours = read_catalog(ROOT / "src" / "potstill" / "catalog" / "entries.yaml")
    assert set(ours) - cells(site / "reference" / "catalogue.html") == set()


def test_every_task_has_a_page_with_its_prompts(site: Path) -> None:
    for name in get_args(TaskName):
        page = (site / "tasks" / f"{name}.html").read_text(encoding="utf-8")
        assert "The student is trained on, and asked" in page or "All models are asked" in page


def test_the_result_of_the_quickstart_is_that_of_the_readme(site: Path) -> None:
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ROUGE-L ")]
    assert set(rows[0].strip("| ").split(" | ")) <= cells(site / "guide" / "why.html")


def test_the_configuration_names_no_page_twice() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    names = re.findall(r"[\w/-]+\.md", yaml.safe_dump(yaml.safe_load(text)["nav"]))
    assert len(names) == len(set(names))
