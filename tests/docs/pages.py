"""A page of the documentation as a list of blocks, each to be run, to be checked, or marked with the reason why not.

    ```console                   commands after `$ `; the lines below a command are what it prints, `...` standing for anything
    ```python                    run, one namespace a page; a block titled "Output" right after it is what it prints
    ```yaml title="job.yaml"     a file of that name (yaml, jsonl, csv, json or python)
    ```yaml                      sections of a job file, checked as such
    ```jsonl                     rows of the task that the page's front matter names, each read as one
    <!-- exit 2 -->              before a console block: its last command ends with this code, all others with 0
    <!-- not run: REASON -->     before any block: it is not run, for one of the reasons in REASONS

Pages whose front matter has the same `story` are run one after the other in one folder, each other page in a folder of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REASONS = ("takes minutes", "an illustration")
FILE_KINDS = ("yaml", "jsonl", "csv", "json", "python")
OUTPUT = "Output"

_FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_MARKER = re.compile(r"<!-- (not run: (?P<reason>[^>]+)|exit (?P<code>\d+)) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block. `title` names a file or says that it is output; `not_run` is the reason why nothing is done with it."""

    kind: str
    title: str | None
    text: str
    line: int
    not_run: str | None
    exit_code: int


@dataclass(frozen=True)
class Page:
    """A page: its name below docs/, what its front matter says, its blocks in order, and code that is in no fence."""

    name: str
    meta: dict[str, Any]
    blocks: tuple[Block, ...]
    unfenced: tuple[int, ...]

    @property
    def story(self) -> str:
        return str(self.meta.get("story", self.name))


def read_page(path: Path, *, name: str) -> Page:
    """Read a Markdown file."""
    text = path.read_text(encoding="utf-8")
    front = _FRONT_MATTER.match(text)
    meta = yaml.safe_load(front[1]) if front else {}
    body = text[front.end() :] if front else text
    first_line = text[: front.end()].count("\n") + 1 if front else 1
    blocks: list[Block] = []
    unfenced: list[int] = []
    marker: re.Match[str] | None = None
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        line = (token.map[0] if token.map else 0) + first_line
        if token.type == "fence":
            blocks.append(_block(token.info, token.content, line, marker))
        elif token.type == "code_block":
            unfenced.append(line)
        marker = _MARKER.fullmatch(token.content.strip()) if token.type == "html_block" else None
    return Page(name, meta, tuple(blocks), tuple(unfenced))


def _block(info: str, text: str, line: int, marker: re.Match[str] | None) -> Block:
    title = _TITLE.search(info)
    return Block(
        kind=info.split()[0] if info.split() else "",
        title=title[1] if title else None,
        text=text,
        line=line,
        not_run=marker["reason"] if marker else None,
        exit_code=int(marker["code"] or 0) if marker else 0,
    )


def all_pages() -> list[Page]:
    """Every page in the order of the site's navigation."""
    # The configuration may hold tags that only mkdocs knows; nav has none.
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    return [read_page(DOCS / name, name=name) for name in _names(nav)]


def _names(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [name for value in values for name in _names(value)]


def stories(pages: list[Page]) -> dict[str, list[Page]]:
    """The pages that are run together, by the name of their story."""
    found: dict[str, list[Page]] = {}
    for page in pages:
        found.setdefault(page.story, []).append(page)
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it is shown to print; a line that ends in a backslash goes on."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1] = (found[-1][0][:-1] + line.strip(), [])
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(shown)) for command, shown in found]


def matches(shown: str, printed: str) -> bool:
    """Whether a text is what a page shows, `...` standing for anything, spaces at the ends of lines aside."""
    pattern = ".*?".join(re.escape(part) for part in _bare(shown).split("..."))
    return re.fullmatch(pattern, _bare(printed), re.DOTALL) is not None


def _bare(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
