"""The blocks that are marked to be run, page by page, as they stand: in a folder where recipes and photographs of these names are small."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import compress.data.draw
import compress.init
import compress.measure
import compress.pruning.shrink
from compress.cli import app
from compress.cost import parameters
from compress.pruning.budget import Cost
from tests.documentation.shown import ROOT, Block, blocks, commands, name_of, pages

pytestmark = pytest.mark.slow

TINY = ROOT / "tests" / "end_to_end"
EXAMPLE = ROOT / "examples" / "README.md"
# The example first: what it leaves is where other pages begin.
MARKED = sorted((page for page in pages() if any(block.runs for block in blocks(page))), key=lambda page: (page != EXAMPLE, page))


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Path:
    """A folder for what the example leaves: its photographs, and its experiment."""
    return tmp_path_factory.mktemp("left")


@pytest.fixture
def world(tmp_path, monkeypatch, tiny_run, left) -> Path:
    """The working folder of a page."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    text = (TINY / "tiny.yml").read_text()
    (tmp_path / "recipes" / "db_mv3_prune0.6_distill.yml").write_text(text)
    shutil.copy(TINY / "tiny_teacher.yml", tmp_path / "recipes")
    for name in ("db_mv3_prune0.6_distill", "seed0", "seed1"):
        shutil.copytree(tiny_run, tmp_path / "experiments" / name)
    shutil.copytree(tiny_run.parent / "tiny_teacher", tmp_path / "experiments" / "tiny_teacher")
    for name in ("photo.jpg", "docs/sample.jpg", "scans/a.jpg", "more/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "docs" / "sample.jpg", tmp_path / name)
    (tmp_path / "compress").mkdir()
    (tmp_path / "compress" / "default_model").symlink_to(ROOT / "compress" / "default_model")
    for path in left.iterdir():
        shutil.copytree(path, tmp_path / path.relative_to(left), dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def small(monkeypatch) -> None:
    """Few photographs and short trainings; a clock that shows a model's size, so that no latency is missed on a busy machine. Files are
    timed, checkpoints are not: each is exported for that.
    """
    draw_folder = compress.data.draw.draw_folder

    def few(out: Path, name: str, *, images: int, test: int, size: int, seed: int) -> list[str]:
        return draw_folder(out, name, images=min(images, 6), test=min(test, 2), size=min(size, 128), seed=seed)

    monkeypatch.setattr(compress.data.draw, "draw_folder", few)
    monkeypatch.setattr(compress.init, "TUNED_VIEWS", 4)
    monkeypatch.setattr(compress.init, "FEWEST", 1)
    monkeypatch.setattr(compress.init, "LARGEST_CROP", 64)
    monkeypatch.setattr(compress.init, "cost_range", lambda *_: (Cost(20.0, "20ms"), Cost(5.0, "5ms")))
    monkeypatch.setattr(compress.measure, "checkpoint_latency", lambda *_: {})
    monkeypatch.setattr(
        compress.pruning.shrink, "cost_of", lambda _target, model, _latency: Cost(parameters(model.network) / 4e4, "as many as it has")
    )


def run(block: Block) -> None:
    """Do what a block says. Every command must end with status 0."""
    if block.language == "python":
        exec(compile(block.text, block.place, "exec"), {})
        return
    called = list(commands(block.text))
    assert len(called) == len([line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]), (
        f"{block.place}: compress alone"
    )
    for words in called:
        result = CliRunner().invoke(app, words, catch_exceptions=True)
        told = f"{block.place}: compress {' '.join(words)}\n{result.output}\n{result.exception!r}"
        assert result.exit_code == 0, told


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("page", MARKED, ids=name_of)
def test_a_page_can_be_followed(page, world, left):
    for block in blocks(page):
        if block.runs:
            run(block)
    if page == EXAMPLE:
        found = world / "experiments" / "mine" / "files_int8" / "openvino" / "model.xml"
        assert found.is_file()
        assert sorted(path.name for path in (world / "found").glob("*.json")) == ["test_00000.json", "test_00001.json"]
        (left / "experiments").mkdir()
        shutil.copytree(world / "experiments" / "mine", left / "experiments" / "mine")
        shutil.copytree(world / "photos", left / "photos")


def test_what_fails_is_noticed():
    with pytest.raises(AssertionError, match=r"page:1: compress predict nowhere\.jpg"):
        run(Block("page:1", "bash", "compress predict nowhere.jpg", runs=True))
    with pytest.raises(AssertionError, match="compress alone"):
        run(Block("page:1", "bash", "ls", runs=True))
