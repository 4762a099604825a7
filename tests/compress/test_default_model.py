"""The pipeline that comes with the package: found from anywhere, small, in the wheel, and it finds words and reads them."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import compress
from compress import packaged
from compress.data.images import read_image
from compress.errors import CompressError
from compress.predictor import Predictor, open_predictor
from compress.result import Result

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "compress" / "default_model"


def test_a_word_is_found_from_another_folder_without_a_word_about_models(tmp_path):
    image = np.full((240, 480, 3), 235, np.uint8)
    cv2.putText(image, "Market", (100, 140), cv2.FONT_HERSHEY_DUPLEX, 2.0, (30, 30, 30), 5, cv2.LINE_AA)
    left, top, width, height = cv2.boundingRect(cv2.findNonZero((image[..., 0] < 200).astype(np.uint8)))
    cv2.imwrite(str(tmp_path / "photo.jpg"), image)
    # The checkout under test, whatever else is installed.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "compress", "predict", "photo.jpg"]
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "predictions" / "photo.png").exists()
    record = json.loads((tmp_path / "predictions" / "photo.json").read_text())
    assert record["text"] == "Market"
    assert "1 word: 'Market'" in result.stdout
    (found,) = record["words"]
    truth = np.array([(left, top), (left + width, top), (left + width, top + height), (left, top + height)], np.float32)
    polygon = np.array(found["polygon"], np.float32)
    shared, _ = cv2.intersectConvexConvex(truth, polygon)
    assert shared / (cv2.contourArea(truth) + cv2.contourArea(polygon) - shared) > 0.5


def test_words_of_a_line_in_a_strip_are_found_one_by_one():
    """A line of text 24 pixels high: enlarged to 736, words are too high to be found, and take gigabytes."""
    strip = np.full((24, 2400, 3), 255, np.uint8)
    places = range(20, 2400, 300)
    for left in places:
        cv2.putText(strip, "total", (left, 17), cv2.FONT_HERSHEY_DUPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    read = open_predictor(threads=1).predict(strip)
    assert read.text == " ".join(["total"] * len(places))
    found = [word.polygon.mean(0).tolist() for word in read.words]
    assert [round((x - 45) / 300) for x, _ in found] == list(range(len(places)))
    assert all(abs(x - 43 - 300 * place) < 15 and 4 < y < 20 for place, (x, y) in enumerate(found))


def test_it_is_small_and_says_how_to_use_it():
    assert packaged.default_model() == FOLDER
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 3_000_000
    reader = open_predictor()
    assert (reader.algorithm.task, reader.runtime, reader.precision) == ("ocr", "openvino", "int8")
    detector = open_predictor(packaged.default_part("detector"))
    assert detector.algorithm.task == "detection"
    assert detector.evaluate.settings(detector.algorithm) != detector.algorithm.settings()


def test_it_is_in_the_wheel_with_its_notice(monkeypatch):
    """The list of files that setuptools would pack, from the settings alone."""
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.chdir(ROOT)
    distribution = setuptools.Distribution()
    distribution.parse_config_files(["setup.cfg"])
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    packed = {Path(source) / name for _, source, _, names in build.data_files for name in names}
    assert packed >= {path.relative_to(ROOT) for path in FOLDER.rglob("*") if path.is_file()}
    assert {"LICENSE", "NOTICE"} <= set(distribution.metadata.license_files)
    assert "PaddleOCR" in (ROOT / "NOTICE").read_text()


def test_a_broken_installation_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "files", lambda _: tmp_path)
    with pytest.raises(CompressError, match=r"no pipeline\.yml in .*default_model; install the package again"):
        packaged.default_model()
    shutil.copytree(FOLDER, tmp_path / "default_model")
    (tmp_path / "default_model" / "recogniser" / "model.bin").unlink()
    with pytest.raises(CompressError, match=r"model\.bin, a file of the recogniser, is missing"):
        open_predictor()


@pytest.fixture(scope="module")
def reader() -> Predictor:
    return open_predictor(threads=1)


SAMPLE = ROOT / "docs" / "sample.jpg"


def test_it_is_what_load_opens_without_a_path_and_reads_a_file_by_its_name(reader):
    found = compress.load(threads=1).predict(str(SAMPLE))
    assert found.text == "jot DETOBITUTI NIR\n99974\nObo\nOsotihumer JEL usiwezyg\n368126\nIJIHAR"
    assert bits(reader.predict(read_image(SAMPLE))) == bits(found)
    with pytest.raises(CompressError, match=r"nowhere\.jpg"):
        reader.predict("nowhere.jpg")


def bits(found: Result) -> list:
    """All of a reading, to the last bit."""
    return [(word.text, word.confidence, word.polygon.tobytes(), word.line) for word in found.words]


def test_an_image_is_the_same_however_it_is_given(reader):
    expected = bits(reader.predict(SAMPLE))
    pixels = read_image(SAMPLE)
    for given in (
        str(SAMPLE),
        SAMPLE.read_bytes(),
        Image.open(SAMPLE),
        pixels,
        pixels / 255,
        np.dstack([pixels, np.full_like(pixels, 255)[..., :1]]),
    ):
        assert bits(reader.predict(given)) == expected
    assert bits(reader.predict(pixels[..., ::-1], color="bgr")) == expected
    both = reader.predict([SAMPLE, pixels])
    assert [bits(one) for one in both] == [expected] * 2
    assert reader.predict([]) == []


@pytest.mark.parametrize(
    ("given", "color", "told"),
    [
        (None, "rgb", "was given None"),
        (3, "rgb", "was given a value of type int"),
        ({}, "rgb", "a value of type dict"),
        ([None], "rgb", "was given None"),
        (b"no image", "rgb", "bytes does not decode"),
        (np.zeros((3, 9, 9)), "rgb", "move the channels to the end"),
        (np.zeros((9, 9, 3), np.uint8), "gbr", "'rgb' or 'bgr', not 'gbr'"),
        (SAMPLE, "bgr", "is for arrays"),
    ],
)
def test_what_is_no_image_is_refused_by_saying_what_was_given(reader, given, color, told):
    with pytest.raises(CompressError, match=told):
        reader.predict(given, color=color)


def test_a_result_has_words_a_text_a_drawing_and_json(reader):
    found = reader.predict(SAMPLE)
    assert [word.text for word in found.words][:2] == ["jot", "DETOBITUTI"]
    assert found.json()["text"] == found.text
    assert json.loads(json.dumps(found.json()))["words"][0]["text"] == "jot"
    drawing = found.draw()
    assert (drawing.mode, drawing.size) == ("RGB", Image.open(SAMPLE).size)
    assert np.asarray(drawing).tobytes() != read_image(SAMPLE).tobytes()
    assert bits(copy.copy(found)) == bits(found)
    with pytest.raises(AttributeError, match="polygons"):
        found.polygons  # noqa: B018


def scene(seed: int, height: int, width: int) -> np.ndarray:
    """Words on a page of that size."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 235, np.uint8)
    for row in range(40, height - 10, 60):
        text = "".join(chr(65 + letter) for letter in rng.integers(0, 26, rng.integers(2, 9)))
        cv2.putText(image, text, (int(rng.integers(0, width // 3)), row), cv2.FONT_HERSHEY_DUPLEX, 1.1, (30, 30, 30), 2, cv2.LINE_AA)
    return image


@pytest.mark.slow
def test_an_image_reads_the_same_bit_for_bit_in_whatever_company():
    images = [scene(place, 160 + 32 * (place % 3), 240 + 40 * (place % 5)) for place in range(8)]
    alone = [bits(open_predictor(threads=1).predict(images[0])), *(bits(one) for one in open_predictor(threads=1).predict(images[1:]))]
    assert sum(map(len, alone)) > 8
    reader = open_predictor(threads=1)
    for place in (5, 1, 5, 5, 5, 5, 5, 0, 7, 2, 3, 6, 4, 0, 1):  # often enough for a runtime to compile a model for a size
        assert bits(reader.predict(images[place])) == alone[place]
    assert [bits(one) for one in reader.predict(images)] == alone


@pytest.mark.slow
@pytest.mark.parametrize("size", [(40, 2000), (2000, 40), (1, 50), (50, 1), (1, 1), (9000, 60)])
def test_images_of_odd_shapes_are_handled_at_a_sane_size(reader, size):
    shown = reader.task.shown(scene(0, *size), reader.evaluate, reader.algorithm.input)
    assert all(0 <= word.confidence <= 1 for word in reader.predict(shown).words)
