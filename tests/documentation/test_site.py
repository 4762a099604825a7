"""The documentation as a site: every page is in its navigation, and it builds without a warning."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.documentation.shown import ROOT, name_of, pages

CONFIG = ROOT / "mkdocs.yml"


def named(entries: list | dict | str) -> list[str]:
    """The pages of a navigation."""
    if isinstance(entries, str):
        return [entries]
    return [page for entry in (entries if isinstance(entries, list) else entries.values()) for page in named(entry)]


def test_the_navigation_names_every_page_once_and_no_other():
    listed = named(yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["nav"])
    assert len(listed) == len(set(listed))
    tables = {name_of(page) for page in pages() if page.name == "table.md" and "published" in page.parts}
    assert set(listed) == {name_of(page) for page in pages()} - tables


def build(folder: Path) -> subprocess.CompletedProcess:
    """`zensical build --strict` in a folder."""
    program = shutil.which("zensical", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("zensical is not installed: pip install -e '.[docs]'")
    path = f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}"
    found = subprocess.run(
        [folder / ".ci" / "docs"], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120, check=False
    )
    found.stdout = re.sub(r"\x1b\[[0-9;]*m", "", found.stdout + found.stderr)
    return found


@pytest.fixture
def checkout(tmp_path) -> Path:
    """The files of the documentation, in a repository of their own."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False)
    if not listed.stdout:
        pytest.skip("this is no checkout: the site is built from what is in the repository")
    for name in listed.stdout.splitlines():
        wanted = name.startswith(("docs/", "examples/", "recipes/", ".ci/docs")) or name.endswith(".md") or name == "mkdocs.yml"
        if (wanted or name in ("LICENSE", "NOTICE")) and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.slow
def test_the_site_builds_without_a_warning(checkout):
    found = build(checkout)
    assert found.returncode == 0, found.stdout
    site = checkout / "build" / "site"
    assert (site / "index.html").is_file()
    for page in named(yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["nav"]):
        path = Path(page)
        place = path.parent if path.name == "README.md" else path.with_suffix("")
        assert (site / place / "index.html").is_file(), page


@pytest.mark.slow
def test_a_link_to_no_page_ends_the_build(checkout):
    with (checkout / "docs" / "table.md").open("a") as file:
        file.write("\n[nothing](nowhere.md)\n")
    found = build(checkout)
    assert found.returncode != 0
    assert "page does not exist" in found.stdout
