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
from compress import ledger
from compress.cli import app
from compress.cost import parameters
from compress.data.draw import draw_folder
from compress.pruning.budget import Cost
from tests.documentation.shown import ROOT, Block, blocks, commands, name_of, pages

pytestmark = pytest.mark.slow

TINY = ROOT / "tests" / "end_to_end"
EXAMPLE = ROOT / "examples" / "README.md"
README = ROOT / "README.md"
OTHERS = [page for page in pages() if page != EXAMPLE and any(block.runs for block in blocks(page))]


def world(folder: Path, tiny_run: Path) -> None:
    """Put into the working folder of a page what it may name: recipes, experiments, images, and the packaged pipeline."""
    (folder / "recipes").mkdir()
    shutil.copy(TINY / "tiny.yml", folder / "recipes" / "db_mv3_prune0.6_distill.yml")
    shutil.copy(TINY / "tiny_teacher.yml", folder / "recipes")
    for name in ("db_mv3_prune0.6_distill", "seed0", "seed1"):
        shutil.copytree(tiny_run, folder / "experiments" / name)
    shutil.copytree(tiny_run.parent / "tiny_teacher", folder / "experiments" / "tiny_teacher")
    for name in ("photo.jpg", "docs/sample.jpg", "scans/a.jpg", "more/b.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "docs" / "sample.jpg", folder / name)
    draw_folder(folder / "photos", "icdar2015", images=4, test=1, size=96, seed=0)
    (folder / "compress").mkdir()
    (folder / "compress" / "default_model").symlink_to(ROOT / "compress" / "default_model")


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Few photographs and short trainings; a clock that shows a model's size, so that no latency is missed on a busy machine. Files are
    timed, checkpoints are not: each is exported for that.
    """

    def few(out: Path, name: str, *, images: int, test: int, size: int, seed: int) -> list[str]:
        return draw_folder(out, name, images=min(images, 6), test=min(test, 2), size=min(size, 128), seed=seed)

    patch.setattr(compress.data.draw, "draw_folder", few)
    patch.setattr(compress.init, "TUNED_VIEWS", 4)
    patch.setattr(compress.init, "FEWEST", 1)
    patch.setattr(compress.init, "LARGEST_CROP", 64)
    patch.setattr(compress.init, "cost_range", lambda *_: (Cost(20.0, "20ms"), Cost(5.0, "5ms")))
    patch.setattr(compress.measure, "checkpoint_latency", lambda *_: {})
    patch.setattr(compress.pruning.shrink, "cost_of", lambda _target, model, _latency: Cost(parameters(model.network) / 4e4, "its size"))


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


def follow(page: Path) -> None:
    """Run the marked blocks of a page in their order, in the working folder."""
    for block in blocks(page):
        if block.runs:
            run(block)


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    """The folder in which the worked example was followed."""
    folder = tmp_path_factory.mktemp("example")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        patch.chdir(folder)
        follow(EXAMPLE)
    return folder


def test_the_example_leads_from_photographs_to_an_int8_file(example):
    rows = {row.stage: row for row in ledger.read(example / "experiments" / "mine")}
    assert rows["files_int8/openvino"].bytes < rows["files/openvino"].bytes < rows["start"].bytes
    assert rows["files_int8/openvino"].runtime == "openvino int8"
    assert sorted(path.name for path in (example / "found").glob("*.json")) == ["test_00000.json", "test_00001.json"]


@pytest.mark.parametrize("page", OTHERS, ids=name_of)
def test_a_page_can_be_followed(page, tmp_path, tiny_run, monkeypatch, request):
    make_small(monkeypatch)
    world(tmp_path, tiny_run)
    if page == README:  # its last commands are those of the example
        done = request.getfixturevalue("example")
        shutil.rmtree(tmp_path / "photos")
        shutil.copytree(done / "photos", tmp_path / "photos")
        shutil.copytree(done / "experiments" / "mine", tmp_path / "experiments" / "mine")
    monkeypatch.chdir(tmp_path)
    follow(page)


def test_what_fails_is_noticed():
    with pytest.raises(AssertionError, match=r"page:1: compress predict nowhere\.jpg"):
        run(Block("page:1", "bash", "compress predict nowhere.jpg", runs=True))
    with pytest.raises(AssertionError, match="compress alone"):
        run(Block("page:1", "bash", "ls", runs=True))
