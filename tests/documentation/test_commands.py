"""Every command that is shown is one: its options exist, and the recipes that it names are there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from compress import shipped
from tests.documentation.shown import ROOT, blocks, commands, of_help, of_pages, of_prose, parsed

DONE_AT_ONCE = ["--install-completion"]  # by parsing it
SHOWN = [(place, words) for place, words in (*of_pages(), *of_help()) if words != DONE_AT_ONCE]


def test_commands_are_found():
    assert len(SHOWN) > 90
    assert {place.partition(":")[0] for place, _ in SHOWN} >= {"README.md", "docs/commands.md", "compress run --help"}


def test_a_line_of_a_shell_is_taken_apart():
    line = "cd x && compress run a.yml -o 'b=[1, 2]' > log  # why\nX=1 torchrun -n 2 -m compress eval \\\n  a --json | compress predict b"
    assert list(commands(line)) == [["run", "a.yml", "-o", "b=[1, 2]"], ["eval", "a", "--json"], ["predict", "b"]]


@pytest.mark.parametrize("words", [["rum", "a.yml"], ["run", "a.yml", "--fast"], ["data", "chec", "x"], ["eval"]])
def test_what_is_no_command_is_noticed(words):
    assert parsed(words) == 2


@pytest.mark.parametrize(("place", "words"), SHOWN, ids=[f"{place} {' '.join(words)[:60]}" for place, words in SHOWN])
def test_the_command_can_be_given(place, words):
    assert parsed(words) == 0, place
    for word in words:
        if word.startswith("recipes/"):
            assert (ROOT / word).is_file(), f"{place} names {word}"


def test_commands_in_the_text_of_a_page_are_some():
    named = list(of_prose())
    assert len(named) > 50
    assert [(place, words) for place, words in named if parsed(words, whole=False)] == []
    assert parsed(["eval", "--tun"], whole=False) == parsed(["evil"], whole=False) == 2


def test_recipes_that_are_named_without_a_folder_are_shipped():
    named = {words[1] for _, words in SHOWN if words[0] in ("run", "plan") and words[1].isidentifier()}
    assert named <= set(shipped.names())


def test_every_page_of_the_documentation_begins_with_a_command():
    for page in [*(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]:
        first = next(blocks(page))
        assert first.language == "bash", first.place
        assert list(commands(first.text)) or first.text.startswith("pip install"), first.place
        lines = page.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("# "), page
        assert int(first.place.rpartition(":")[2]) <= 5, f"{first.place} comes late"


def test_the_readme_is_short_and_its_table_is_that_of_the_published_run():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) < 900
    table = text.partition("<!-- table -->\n")[2].partition("<!-- end of table -->")[0]
    published = (ROOT / "experiments" / "published" / "db_mv3_prune0.6_distill" / "table.md").read_text(encoding="utf-8")
    assert [line for line in table.splitlines() if line not in published.splitlines()] == []


@pytest.mark.parametrize("script", sorted((ROOT / "experiments" / "published").rglob("*.py")), ids=lambda path: path.name)
def test_the_scripts_of_published_results_start(script):
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert "--out" in done.stdout or "--model" in done.stdout
