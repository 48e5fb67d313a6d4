"""What documents and messages point to is there, also for somebody who has the wheel alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [path for folder in ("", "docs", "docs/suite") for path in sorted((ROOT / folder).glob("*.md"))]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"(?<![\w/])docs/[\w./-]*\w")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def broken_links(page: Path) -> Iterator[str]:
    for link in _LINK.findall(_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if ":" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_every_document_that_is_named_is_there() -> None:
    named = {
        (name, path.name)
        for path in [*PAGES, *(ROOT / "src").rglob("*.py")]
        for name in _NAMED.findall(path.read_text(encoding="utf-8"))
    }
    assert [pair for pair in named if not (ROOT / pair[0]).exists()] == []


def test_no_message_names_a_document_that_the_wheel_lacks() -> None:
    message = re.compile(r"""["'](?:[^"'\n]*[^\w/"'\n])?docs/""")
    assert [path.name for path in (ROOT / "src").rglob("*.py") if message.search(path.read_text("utf-8"))] == []
