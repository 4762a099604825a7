"""Every link of a page leads to a file of the repository, and every anchor to a heading; links to other sites are not followed."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.documentation.shown import FENCE, ROOT, name_of, pages

LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
SITES = ("https://", "http://", "mailto:")


def prose(page: Path) -> str:
    """The text of a page without its blocks and what stands in backquotes."""
    kept, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if FENCE.match(line.strip()):
            inside = not inside
        elif not inside:
            kept.append(line)
    return re.sub(r"(?<!`)`[^`\n]+`", lambda found: "`" * len(found[0]) if "](" in found[0] else found[0], "\n".join(kept))


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain)


@cache
def tracked() -> frozenset[str]:
    """Paths of the repository's files, and of the folders that they lie in; empty where this is no checkout."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False)
    files = listed.stdout.splitlines()
    return frozenset(files) | {parent.as_posix() for file in files for parent in Path(file).parents}


def faults(page: Path) -> list[str]:
    """What is wrong with the links of a page, in words."""
    found = []
    for link in LINK.findall(prose(page)):
        if link.startswith(SITES):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            found.append(f"{link}: there is no such file")
        elif tracked() and target.is_relative_to(ROOT) and target.relative_to(ROOT).as_posix() not in tracked():
            found.append(f"{link}: the file is not part of the repository")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            found.append(f"{link}: the page has no such heading")
    return found


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page):
    assert faults(page) == []


def test_broken_links_are_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading, `b`\n[a](nowhere.md) [b](#c) [d](#a-heading-b) [e](https://f) ![g](h.png)\n```\n[i](j.md)\n```\n`[k](l.md)`\n"
    )
    assert [fault.partition(":")[0] for fault in faults(page)] == ["nowhere.md", "#c", "h.png"]


def test_every_page_can_be_reached_from_the_readme():
    known, left = set(), {ROOT / "README.md"}
    while left:
        page = left.pop()
        known.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(prose(page)) if not link.startswith(SITES)}
        left |= {target for target in targets if target.suffix == ".md" and target.is_file()} - known
    documents = {page for page in pages() if page.parent.name in ("docs", "examples", "recipes") or page.parent == ROOT}
    assert documents <= known, sorted(name_of(page) for page in documents - known)
