"""`compress predict`: which images are meant, what their results are called, and that nothing of a user's is lost by it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from compress import outputs, predict
from compress.cli import app
from compress.data.images import read_image
from compress.errors import CompressError
from compress.models.registry import build
from compress.predict import predict_files, result_names
from compress.predictor import Predictor
from compress.tasks.detection import EvaluateDetection

BOX = np.array([(20, 10), (60, 10), (60, 30), (20, 30)])


def photo(path: Path, ink: int = 20) -> bytes:
    """An image of a dark box on white; its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((64, 96, 3), 255, np.uint8)
    cv2.fillPoly(image, [BOX], (ink, ink, ink))
    kept, data = cv2.imencode(path.suffix if path.suffix in (".png", ".jpg") else ".png", image)
    assert kept
    path.write_bytes(data.tobytes())
    return data.tobytes()


def dark_is_word(images: np.ndarray) -> dict[str, np.ndarray]:
    """What is darker than the mean of ImageNet is a word."""
    return {"probability": (images.mean(1, keepdims=True) < 0).astype(np.float32)}


@pytest.fixture(autouse=True)
def detector(monkeypatch) -> Predictor:
    """Stands in for every model: finds dark boxes."""
    found = Predictor(dark_is_word, build("db"), EvaluateDetection(short_side=64, unclip_ratio=0.0), {}, "plain", "fp32")
    monkeypatch.setattr(predict, "open_predictor", lambda *_, **__: found)
    return found


def done(*inputs: str | Path, out: str | Path = "out") -> list[predict.Prediction]:
    return list(predict_files([Path(path) for path in inputs], None, Path(out), "cpu"))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


# Which images


def test_a_folder_a_pattern_and_files_each_image_once():
    for name in ("scans/b/2.png", "scans/a10.jpg", "scans/a9.PNG", "scans/.hidden.png", "scans/.cache/x.png", "one.png"):
        photo(Path(name))
    Path("scans/notes.txt").write_text("no image")
    found = done("scans", "one.png", "./one.png", "scans/*.jpg", "scans/../one.png")
    assert [str(item.image) for item in found] == ["scans/a9.PNG", "scans/a10.jpg", "scans/b/2.png", "one.png"]
    assert not any(item.failed for item in found)
    assert names("out") == sorted(f"{name}.{kind}" for name in ("a9", "a10", "2", "one") for kind in ("json", "png"))
    assert [str(item.image) for item in done("scans/**/2.png")] == ["scans/b/2.png"]


def test_a_name_that_looks_like_a_pattern_is_a_name_first():
    photo(Path("page[1].png"))
    photo(Path("page1.png"))
    assert [str(item.image) for item in done("page[1].png")] == ["page[1].png"]


def test_what_names_no_image_is_told():
    Path("empty").mkdir()
    told = [item.line for item in done("nowhere.png", "empty", "no/*.png", "x" * 300)]
    assert "no image at nowhere.png" in told[0]
    assert "no image in empty" in told[1]
    assert "called like no/*.png" in told[2]
    assert "cannot be read" in told[3]
    assert not Path("out").exists()


def test_earlier_drawings_are_no_input_of_their_folder():
    photo(Path("a.png"))
    for _ in range(3):
        assert [str(item.image) for item in done(".", out=".")] == ["a.png"]
    assert names(".") == ["a.png", "a.png.json", "a.png.png"]


# What results are called


def test_results_say_what_is_there(tmp_path):
    photo(tmp_path / "photo.png")
    (found,) = done("photo.png")
    record = json.loads(Path("out/photo.json").read_text())
    assert (record["image"], record["height"], record["width"]) == ("photo.png", 64, 96)
    assert found.record == {key: value for key, value in record.items() if key != outputs.MADE_BY}
    (word,) = record["words"]
    np.testing.assert_allclose(np.array(word["polygon"]).min(0), BOX.min(0), atol=2)
    np.testing.assert_allclose(np.array(word["polygon"]).max(0), BOX.max(0), atol=2)
    drawing, image = read_image(Path("out/photo.png")), read_image(Path("photo.png"))
    changed = np.argwhere((drawing != image).any(2))
    np.testing.assert_allclose(changed.min(0), BOX.min(0)[::-1], atol=3)
    np.testing.assert_allclose(changed.max(0), BOX.max(0)[::-1], atol=3)


def test_images_of_one_stem_have_results_of_their_own():
    for name in ("in/a/page.jpg", "in/b/page.jpg", "in/a/page.png", "in/a/other.png", "in/a/PAGE.tif"):
        photo(Path(name))
    found = done("in")
    assert len(found) == 5
    results = sorted(path.name for path in Path("out").glob("*.json"))
    assert results == ["PAGE.tif.json", "a_page.jpg.json", "b_page.jpg.json", "other.json", "page.png.json"]
    for result in results:
        record = json.loads((Path("out") / result).read_text())
        assert read_image(Path(record["drawing"])).shape == (64, 96, 3)
    assert len({json.loads((Path("out") / result).read_text())["image"] for result in results}) == 5


def test_names_are_the_same_in_whatever_order(tmp_path):
    paths = [tmp_path / name for name in ("a/x.png", "b/x.png", "a/b/x.png", "x.png", "a_x.png", "y.png", "x.png.jpg")]
    out = tmp_path / "out"
    straight, back = result_names(paths, out), result_names(paths[::-1], out)
    assert straight == back
    assert len(set(straight.values())) == len(paths)
    assert straight[paths[5]] == "y"


def test_an_input_is_never_an_output():
    kept = {name: photo(Path(name)) for name in ("a.png", "b.jpg", "b.png", "c.png.png", "c.png")}
    found = done(*kept, out=".")
    assert not any(item.failed for item in found)
    assert {name: Path(name).read_bytes() for name in kept} == kept
    assert len(list(Path().glob("*.json"))) == 5
    linked = photo(Path("far/d.png"))
    Path("out").mkdir()
    Path("out/d.png").symlink_to("../far/d.png")
    done("far/d.png")
    assert Path("far/d.png").read_bytes() == linked
    assert Path("out/d.png").is_symlink()


@pytest.mark.parametrize("name", ["photo.png", "photo.json"])
def test_what_is_not_its_own_is_never_written_over(name):
    photo(Path("in/photo.jpg"))
    photo(Path("in/other.jpg"))
    Path("out").mkdir()
    kept = photo(Path("out") / name)
    found = done("in")
    assert [item.failed for item in found] == [False, True]
    assert f"out/{name} is there already" in found[1].line
    assert (Path("out") / name).read_bytes() == kept
    assert names("out") == sorted(["other.json", "other.png", name])
    assert not any(item.failed for item in done("in/other.jpg"))  # its own results it may renew


def test_a_folder_in_the_way_is_named():
    photo(Path("a.jpg"))
    Path("out/a.png").mkdir(parents=True)
    (found,) = done("a.jpg")
    assert "out/a.png is a folder" in found.line
    assert names("out") == ["a.png"]


@pytest.mark.parametrize("name", ["照" * 83 + ".png", "x" * 251 + ".png", "ä" * 125 + ".jpg", "a\nb.png", "<img src=x>.png"])
def test_long_and_odd_names_work(name):
    photo(Path(name))
    (found,) = done(name)
    assert not found.failed, found.line
    assert json.loads(next(Path("out").glob("*.json")).read_text())["image"] == name
    assert read_image(Path(found.record["drawing"])).shape == (64, 96, 3)


def test_long_names_that_begin_alike_stay_apart():
    for folder in "ab":
        photo(Path(folder) / ("x" * 251 + ".png"))
    assert not any(item.failed for item in done("a", "b"))
    assert len(names("out")) == 4


# One does not stop the others


def test_a_bad_image_is_named_and_the_others_are_done():
    for name in ("a.png", "b.png", "d.png"):
        photo(Path("in") / name)
    Path("in/b.png").write_bytes(b"no image")
    Path("in/c.png").symlink_to("nowhere")
    os.mkfifo("in/e.png")
    found = done("in", "gone.png")
    assert [item.failed for item in found] == [False, True, True, False, True, True]
    for item, told in zip(
        [found[1], found[2], found[4], found[5]], ["does not decode", "link to nowhere", "pipe", "no image at"], strict=True
    ):
        assert str(item.image) in item.line
        assert told in item.line
        assert item.record == {"image": str(item.image), "error": item.line}
    assert names("out") == ["a.json", "a.png", "d.json", "d.png"]


def test_no_model_is_opened_before_there_is_an_image(monkeypatch):
    def never(*_, **__):
        raise CompressError("there is no model")

    monkeypatch.setattr(predict, "open_predictor", never)
    assert [item.failed for item in done("gone.png")] == [True]
    photo(Path("a.png"))
    with pytest.raises(CompressError, match="there is no model"):
        done("a.png")
    assert not Path("out").exists()


@pytest.mark.parametrize("out", ["file", "file/below", "file/far/below", "link"])
def test_an_out_that_can_be_no_folder_is_refused_before_any_work(monkeypatch, out):
    photo(Path("a.png"))
    Path("file").write_text("precious")
    Path("link").symlink_to("nowhere")
    monkeypatch.setattr(predict, "read_image", lambda *_: pytest.fail("an image was read"))
    with pytest.raises(CompressError, match=rf"^{out} cannot hold files: .*(file|link) is no folder"):
        done("a.png", out=out)
    assert Path("file").read_text() == "precious"


@pytest.mark.usefixtures("detector")
def test_images_are_read_one_by_one():
    image = np.full((1500, 2000, 3), 255, np.uint8)
    for number in range(8):
        path = Path(f"in/{number}.png")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    tracemalloc.start()
    for _ in predict_files([Path("in")], None, Path("out"), "cpu"):
        pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 * image.nbytes


# The command


def test_json_is_one_object_a_line_and_nothing_else():
    photo(Path("in/a.png"))
    Path("in/b.png").write_text("no image")
    photo(Path("in/c.png"))
    ran = CliRunner().invoke(app, ["predict", "in", "--json", "--out", "out"])
    assert ran.exit_code == 1
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [record["image"] for record in records] == ["in/a.png", "in/b.png", "in/c.png"]
    assert "does not decode" in records[1]["error"]
    assert ran.stderr.count("\n") == 1
    assert len(records[0]["words"]) == 1
    assert CliRunner().invoke(app, ["predict", "in/a.png", "--out", "out"]).exit_code == 0


def command(*words: str | bytes | Path, **options) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-m", "compress", "predict", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(arguments, capture_output=True, timeout=120, env=environment, **options)


def test_names_in_other_encodings_work(tmp_path):
    name = "照片".encode("gbk")
    photo(tmp_path / os.fsdecode(name + b".jpg"))
    result = command(name + b".jpg", "--out", b"out" + name)
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / os.fsdecode(b"out" + name) / os.fsdecode(name + b".json")).read_text())
    assert os.fsencode(record["image"]) == name + b".jpg"
    assert name.decode("gbk").encode() not in result.stdout
    assert b"word" in result.stdout


def test_a_full_disk_is_a_sentence_and_leaves_nothing_half():
    photo(Path("a.jpg"))

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    result = command("a.jpg", "--out", "out", preexec_fn=limited)
    assert result.returncode == 1
    assert result.stderr.decode().count("\n") == 1
    assert b"cannot be written" in result.stderr
    assert names("out") == []
