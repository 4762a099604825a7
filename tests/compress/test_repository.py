"""The repository and what is run in it: no run writes a file that is committed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compress.cli import app
from compress.session import folder_of

ROOT = Path(__file__).parents[2]
PUBLISHED = "experiments/published"
SMALL = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 2, val: 1, test: 1, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [torch], rounds: 3}
stages:
  - train: {name: baseline, epochs: 1, batch: 2, crop: 64}
  - prune: {name: pruned, ratio: 0.5, criterion: l1, batches: 1, batch: 2, crop: 64}
"""


def git(*words: str, cwd: Path) -> list[str]:
    """What git says, a line each."""
    if shutil.which("git") is None:
        pytest.skip("no git here")
    return subprocess.run(("git", *words), cwd=cwd, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.fixture
def repository(tmp_path) -> Path:
    """A new repository that ignores what this one ignores."""
    shutil.copy(ROOT / ".gitignore", tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "small.yml").write_text(SMALL)
    git("init", "--quiet", cwd=tmp_path)
    git("add", ".", cwd=tmp_path)
    git("-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "-m", "first", cwd=tmp_path)
    return tmp_path


def test_all_committed_results_are_published_ones():
    if not (ROOT / ".git").exists():
        pytest.skip("no repository here")
    committed = git("ls-files", "experiments", cwd=ROOT)
    assert [path for path in committed if not path.startswith(f"{PUBLISHED}/")] == []


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").rglob("*.yml")), ids=lambda path: path.stem)
def test_no_recipe_of_the_repository_runs_among_the_published_results(recipe):
    folder = folder_of(recipe, None)
    assert folder.parts[0] == "experiments"
    assert not folder.is_relative_to(PUBLISHED)


@pytest.mark.slow
def test_a_run_and_what_follows_it_leave_the_repository_clean_and_its_tables_can_be_published(repository, monkeypatch):
    monkeypatch.chdir(repository)
    for words in (["run", "recipes/small.yml"], ["table", "experiments/small"], ["report", "experiments/small", "--images", "0"]):
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert (repository / "report.html").exists()
    assert git("status", "--porcelain", cwd=repository) == []
    shutil.copytree(repository / "experiments" / "small", repository / PUBLISHED / "small")
    git("add", ".", cwd=repository)
    added = {Path(path).name for path in git("diff", "--cached", "--name-only", cwd=repository)}
    assert added == {"table.md", "table.csv", "ledger.jsonl", "recipe.yml", "manifest.json", "metrics.jsonl", "channels.json"}
