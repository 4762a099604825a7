"""Recipes that come with the workbench: listed, found by name, copied with what they need."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from compress import recipe_file, shipped
from compress.cli import app
from compress.errors import CompressError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A working folder that is not the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_recipes_of_the_repository_are_listed_with_what_they_are():
    there = {path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in (ROOT / "recipes").rglob("*.yml")}
    lines = CliRunner().invoke(app, ["recipes"]).output.splitlines()
    assert [line.split()[0] for line in lines] == sorted(there)
    for line in lines:
        _, about = line.split(maxsplit=1)
        assert 10 < len(about) < 160
    assert "PAN on built-in data" in "\n".join(lines)


@pytest.mark.parametrize(
    ("comment", "about"),
    [
        ("# Two things: one, two.\n", "Two things"),
        ("# Which one? That.\n", "Which one?"),
        (
            "# A table (Du et al. 2021, section 2.1; of\n# two lines) by 0.5 and ../a.yml, here. More.\n",
            "A table by 0.5 and ../a.yml, here",
        ),
        ("# All of it\n\n# not this\n", "All of it"),
        ("seed: 0\n", ""),
    ],
)
def test_the_first_clause_is_what_a_recipe_is(tmp_path, comment, about):
    (tmp_path / "a.yml").write_text(comment + "seed: 0  # none\n")
    assert shipped.about(tmp_path / "a.yml") == about


@pytest.mark.parametrize("name", ["pan_resnet18", "pan_resnet18.yml"])
@pytest.mark.usefixtures("elsewhere")
def test_a_name_finds_its_recipe_and_a_path_always_wins(name):
    found = shipped.find(Path(name))
    assert found.read_bytes() == (ROOT / "recipes" / "pan_resnet18.yml").read_bytes()
    Path(name).write_text("mine")
    assert shipped.find(Path(name)) == Path(name)


@pytest.mark.usefixtures("elsewhere")
def test_a_name_in_a_folder_and_one_that_leads_nowhere():
    assert shipped.find(Path("icdar2015/db_mv3")).read_bytes() == (ROOT / "recipes/icdar2015/db_mv3.yml").read_bytes()
    for name in ("nowhere", "nowhere.yml", "../recipes/pan_resnet18", "icdar2015"):
        assert shipped.find(Path(name)) == Path(name)
    result = CliRunner().invoke(app, ["run", "nowhere", "--dry-run"])
    assert isinstance(result.exception, CompressError)
    assert "`compress recipes`" in str(result.exception)


def test_a_named_recipe_is_run_from_any_folder_with_its_teacher(elsewhere):
    """The teacher is named relative to the recipe; the experiment goes below the working folder."""
    result = CliRunner().invoke(
        app, ["run", "db_mv3_prune0.6_distill", "--dry-run", "-o", "data.train=2", "-o", "data.val=1", "-o", "data.test=1"]
    )
    assert result.exit_code == 0, result.exception
    assert "baseline: train" in result.output
    assert not list(elsewhere.glob("recipes"))


def test_a_copy_has_all_that_it_needs_and_reads_the_same(elsewhere):
    for name in shipped.names():
        out = elsewhere / name.replace("/", "_")
        first, *_ = shipped.copy([name], out)
        assert first == out / f"{name}.yml"
        read = recipe_file.read_file if name.startswith("sweeps/") else recipe_file.read
        mine, theirs = (read(path).values for path in (first, shipped.folder() / f"{name}.yml"))
        here = first.parent if name.startswith("sweeps/") else Path()
        needed = [here / text for text in shipped.texts(mine) if text.endswith(".yml")]
        assert all(path.is_file() and path.resolve().is_relative_to(out) for path in needed)
        assert [path.name for path in needed] == [Path(text).name for text in shipped.texts(theirs) if text.endswith(".yml")]
        assert {**mine, "stages": list(mine.get("stages", ()))} == {**theirs, "stages": list(theirs.get("stages", ()))}
    assert files(elsewhere / "icdar2015_pse_cpu") == {"icdar2015/pse_cpu.yml", "pse_resnet18.yml", "pse_resnet50.yml"}
    assert files(elsewhere / "icdar2015_ppocr_v3_cpu_students") == {
        "icdar2015/ppocr_v3_cpu_students.yml",
        "icdar2015/ppocr_v3_cpu_cut.yml",
        "icdar2015/ppocr_v3_cpu.yml",
        "icdar2015/ppocr_v3_cpu_longer.yml",
        "icdar2015/ppocr_v3_cpu_longest.yml",
    }


def test_nothing_is_overwritten_and_the_same_again_is_no_fault(elsewhere):
    CliRunner().invoke(app, ["recipes", "pan_resnet18", "--out", "mine"])
    assert files(elsewhere / "mine") == {"pan_resnet18.yml", "pan_resnet50.yml"}
    assert shipped.copy(["pan_resnet18"], Path("mine"))
    (elsewhere / "mine" / "pan_resnet50.yml").write_text("changed")
    (elsewhere / "mine" / "pan_resnet18.yml").unlink()
    with pytest.raises(CompressError, match=r"pan_resnet50\.yml is there already"):
        shipped.copy(["pan_resnet18"], Path("mine"))
    assert files(elsewhere / "mine") == {"pan_resnet50.yml"}
    assert (elsewhere / "mine" / "pan_resnet50.yml").read_text() == "changed"


def test_an_unknown_name_is_refused_before_any_is_copied(elsewhere):
    with pytest.raises(CompressError, match="'pan_resnet19'"):
        shipped.copy(["pan_resnet18", "pan_resnet19"], Path("mine"))
    assert files(elsewhere) == set()
