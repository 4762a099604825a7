"""What commands leave for a user: nothing of somebody else's is replaced, and a place that cannot be is refused before any work."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compress import outputs, sensitivity
from compress.before_work import check_folder
from compress.cli import app
from compress.convert import convert_file
from compress.errors import CompressError
from compress.exporters import write as exporting
from compress.files import write_text
from compress.report import page
from compress.session import prepare

RECIPE = """
model: {name: db}
data: {format: synthetic, train: 2, val: 2, test: 2, size: 64}
stages: [{train: {name: base, epochs: 1}}]
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("recipe.yml").write_text(RECIPE)


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize("out", ["file", "file/below"])
@pytest.mark.parametrize(
    "words",
    [
        ["run", "recipe.yml", "--out"],
        ["export", "checkpoint", "--out"],
        ["convert", "a.onnx", "--out"],
        ["data", "convert", "data", "--from", "icdar2015", "--to", "paddleocr", "--out"],
        ["predict", "a.png", "--out"],
        ["report", "experiment", "--images", "0", "--plots"],
        ["recipes", "pan_resnet18", "--out"],
    ],
)
def test_an_out_that_can_be_no_folder_is_refused_before_any_work(words, out):
    before = files()
    ran = CliRunner().invoke(app, [*words, out])
    assert isinstance(ran.exception, CompressError), ran.exception
    assert str(ran.exception).startswith(out)
    assert files() == before


@pytest.mark.parametrize("out", [".", "file", "file/below.png"])
@pytest.mark.parametrize(
    "words", [["report", "experiment", "--out"], ["data", "check", "data", "--out"], ["data", "preview", "recipe.yml", "--out"]]
)
def test_an_out_that_can_be_no_file_or_is_a_users_is_refused_before_any_work(words, out):
    before = files()
    ran = CliRunner().invoke(app, [*words, out])
    assert isinstance(ran.exception, CompressError), ran.exception
    assert out.removesuffix("/below.png") in str(ran.exception)
    assert files() == before


def test_a_claimed_name_is_written_again_and_any_other_is_a_users():
    Path("out").mkdir()
    Path("out/b").write_text("mine")
    outputs.claim(Path("out"), ["a"])
    Path("out/a").write_text("ours")
    outputs.claim(Path("out"), ["a", "c"])
    with pytest.raises(CompressError, match=r"out/b is there already, and compress has not made it"):
        outputs.claim(Path("out"), ["a", "b", "d"])
    Path("out/d").write_text("mine, for it was not claimed")
    with pytest.raises(CompressError, match="out/d"):
        outputs.claim(Path("out"), ["d"])


def test_an_export_replaces_its_own_files_and_no_others(monkeypatch):
    def write_files(_model, formats, folder, _images):
        for name in formats:
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "model").write_text("ours")
            yield name, f"{name}/model", {"difference": {}}

    for name, stand_in in (("load", lambda _: None), ("write_files", write_files), ("inspect", lambda _: None)):
        monkeypatch.setattr(exporting, name, stand_in)
    Path("openvino").mkdir()
    Path("openvino/model.xml").write_text("mine")
    assert len(list(exporting.export_checkpoint(Path("x"), ["onnx"], Path(), []))) == 1
    assert len(list(exporting.export_checkpoint(Path("x"), ["onnx"], Path(), []))) == 1
    with pytest.raises(CompressError, match="openvino is there already"):
        list(exporting.export_checkpoint(Path("x"), ["onnx", "openvino"], Path(), []))
    assert Path("openvino/model.xml").read_text() == "mine"


@pytest.mark.parametrize("name", ["model.yml", "model.safetensors", "quantization.json"])
def test_a_converted_model_takes_the_place_of_nothing(name):
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    with pytest.raises(CompressError, match=f"out holds a {name} already"):
        list(convert_file(Path("a.onnx"), Path("out")))


@pytest.mark.parametrize("name", ["table.md", "table.csv"])
def test_a_run_replaces_no_table_of_a_users(name):
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    session = prepare("recipe.yml", out="out")
    with pytest.raises(CompressError, match=rf"out/{name} would be replaced, and no run has left it"):
        check_folder(session)
    Path("out/.lock").write_text("")
    check_folder(session)


def test_a_report_is_written_over_a_report_alone(monkeypatch):
    monkeypatch.setattr(page, "collect", lambda _: [])
    monkeypatch.setattr(page, "page", lambda *_: f"<!DOCTYPE html>\n{outputs.GENERATOR}")
    monkeypatch.setattr(page.gallery, "front_plots", lambda _: [])
    for _ in range(2):
        assert page.write_report([], Path("a.html"), images=0) == [Path("a.html")]
    with pytest.raises(CompressError, match="compress has not made it"):
        page.write_report([], Path("file"), images=0)


def test_a_sensitivity_goes_where_it_belongs_or_into_a_folder_without_others_files():
    home = Path("experiment/sensitivity")
    home.mkdir(parents=True)
    (home / "sensitivity.json").write_text("of an earlier call")
    for asked in (None, home, home.resolve()):
        assert sensitivity.folder_for(asked, Path("experiment"), ["sensitivity.json"]).resolve() == home.resolve()
    Path("mine").mkdir()
    Path("mine/sensitivity.json").write_text("mine")
    with pytest.raises(CompressError, match=r"mine/sensitivity\.json is there already"):
        sensitivity.folder_for(Path("mine"), Path("experiment"), ["sensitivity.json"])


def test_a_text_that_cannot_be_written_leaves_what_was_there(monkeypatch):
    def full(path: Path, _content: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    Path("table.md").write_text("before")
    before = files()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_text(Path("table.md"), "half of it")
    assert files() == before
