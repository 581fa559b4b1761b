"""What the documentation says is done as it says: every file, command and snippet of every page, in order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from docs.pages import DOCS, FILE_KINDS, OUTPUT, REASONS, Block, Page, all_pages, commands, matches, read_page, stories
from docs.world import Reader

PAGES = all_pages()
STORIES = stories(PAGES)


@pytest.mark.parametrize("story", STORIES)
def test_what_pages_say_holds(story: str, reader: Reader) -> None:
    for page in STORIES[story]:
        reader.follow(page)


def is_run(block: Block, page: Page) -> bool:
    """Whether something is done with a block."""
    if block.kind == "console":
        return bool(commands(block))
    if block.kind in FILE_KINDS and block.title not in (None, OUTPUT):
        return True
    before = page.blocks[page.blocks.index(block) - 1]
    if block.title == OUTPUT:
        return before.kind == "python" and before.title is None and before.not_run is None
    return block.kind in ("python", "yaml") or (block.kind == "jsonl" and "task" in page.meta)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_says_why_not(page: Page) -> None:
    assert page.unfenced == ()
    for block in page.blocks:
        assert block.not_run in (None, *REASONS), f"{page.name}, line {block.line}"
        assert is_run(block, page) or block.not_run, f"{page.name}, line {block.line}"
        assert block.kind in ("text", "json") or block.not_run != "an illustration", f"{page.name}, line {block.line}"


def test_few_blocks_are_not_run() -> None:
    blocks = [block for page in PAGES for block in page.blocks]
    reasons = Counter(block.not_run for block in blocks if block.not_run)
    assert sum(reasons.values()) <= len(blocks) // 10, reasons
    assert reasons["takes minutes"] <= 3
    assert set(reasons) == set(REASONS)


def test_every_page_is_in_the_navigation() -> None:
    assert {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} == {page.name for page in PAGES}


def test_commands_and_what_they_print_are_told_apart(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n<!-- exit 2 -->\n```console\n$ one \\\n      --more\nfirst\nsecond\n$ two\n```\n")
    (block,) = read_page(page, name="page.md").blocks
    assert commands(block) == [("one --more", "first\nsecond"), ("two", "")]
    assert (block.kind, block.line, block.exit_code) == ("console", 4, 2)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb", "a \nb\n", True),
        ("a\n...\nd", "a\nb\nc\nd", True),
        ("took ... s", "took 12 s", True),
        ("a", "a\nb", False),
        ("a\n...\nd", "a\nb", False),
        ("1+1", "11", False),
    ],
)
def test_what_is_shown_is_what_is_printed(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same
