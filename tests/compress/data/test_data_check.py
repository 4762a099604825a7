from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from compress.data.check import TILE, check, preview
from compress.data.detection.augment import Augment
from compress.data.formats import DataConfig
from compress.data.split import evenly
from compress.data.training import TrainingSet
from compress.errors import CompressError
from compress.outside import build
from compress.tasks import TASKS
from compress.tasks.detection import DO_NOT_CARE, WORD

CONFIG = TypeAdapter(DataConfig)
SYNTHETIC = {"format": "synthetic", "train": 6, "val": 1, "test": 2, "size": 96}


def folder(root, lines: str):
    for name in ("test_images", "test_gts"):
        (root / name).mkdir()
    cv2.imwrite(str(root / "test_images" / "img_1.png"), np.full((90, 160, 3), 40, np.uint8))
    (root / "test_gts" / "gt_img_1.txt").write_text(lines)
    return CONFIG.validate_python({"format": "icdar2015", "root": root})


def read(path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def near(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(image.astype(int) - colour) < 40).all(axis=2)


def test_the_format_decides_the_model_and_unknown_ones_are_refused():
    assert CONFIG.validate_python(SYNTHETIC).size == 96
    assert str(CONFIG.validate_python({"format": "icdar2015", "root": "somewhere"}).root) == "somewhere"
    for wrong in ({"format": "coco"}, {"root": "x"}, SYNTHETIC | {"root": "x"}, {"format": "icdar2015"}):
        with pytest.raises(ValidationError):
            CONFIG.validate_python(wrong)


def test_reading_a_recipe_needs_neither_torch_nor_matplotlib():
    code = "import sys, compress.data.formats; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_format_trains_with_its_own_default_views():
    for config in ({"format": "icdar2015", "root": "x"}, SYNTHETIC):
        assert isinstance(CONFIG.validate_python(config).default_augment(), Augment)
    assert CONFIG.validate_python({"format": "icdar2015", "root": "x"}).default_augment().scales == (0.5, 1, 2, 3)


def test_counts_are_those_of_the_splits():
    config = CONFIG.validate_python(SYNTHETIC)
    report = check(config, 3)
    assert [(split.name, split.images) for split in report.splits] == [("train", 6), ("val", 1), ("test", 2)]
    for split in report.splits:
        flags = np.concatenate([words.truth.ignore for words in config.open(split.name, 3).annotations])
        assert split.counts == {"words": (~flags).sum(), "do-not-care": flags.sum()}
    assert report.problems == ()


def test_damage_is_reported_by_file_and_line(tmp_path):
    report = check(folder(tmp_path, "8,8,48,8,48,28,8,28,word\n1,2,3\n60,8,99,8,99,28,60,28,###\n"), 0)
    (split,) = report.splits
    assert split.counts == {"words": 1, "do-not-care": 1}
    assert len(report.problems) == 1
    assert "gt_img_1.txt:2" in report.problems[0]


def test_the_contact_sheet_outlines_words_where_they_are(tmp_path):
    out = tmp_path / "new" / "sheet.png"
    check(folder(tmp_path, "8,20,48,20,48,40,8,40,word\n80,50,120,50,120,70,80,70,###\n"), 0, out)
    sheet = read(out)
    assert sheet.shape == (TILE * 90 // 160, TILE, 3)
    scale = TILE / 160
    for colour, (left, top, right, bottom) in ((WORD, (8, 20, 48, 40)), (DO_NOT_CARE, (80, 50, 120, 70))):
        rows, columns = np.nonzero(near(sheet, colour))
        found = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        np.testing.assert_allclose(found, np.array([left, top, right, bottom]) * scale + scale / 2, atol=3)


def halves(sample):
    ones = np.zeros((1, *sample.image.shape[:2]), np.float32)
    ones[..., : ones.shape[2] // 2] = 1
    return {"left": ones, "count": np.array([len(sample.truth.polygons)])}


def test_the_preview_has_a_row_a_view_and_lays_maps_over_it(tmp_path):
    config = CONFIG.validate_python(SYNTHETIC)
    data = TrainingSet(config.open("train", 0), replace(build("db"), targets=halves), config.default_augment(), (64, 64), 0)
    out = tmp_path / "preview.png"
    preview(data, TASKS["detection"], out, count=3)
    sheet = read(out)
    assert sheet.shape == (3 * TILE, 2 * TILE, 3)  # the image and the one map; a count is no map
    left, right = sheet[40:TILE, TILE : TILE + TILE // 2 - 10], sheet[40:TILE, TILE + TILE // 2 + 10 :]
    assert left[..., 0].mean() > left[..., 2].mean() + 30
    assert right[..., 2].mean() > right[..., 0].mean() + 30
    preview(data, TASKS["detection"], out, count=100)
    every = read(out)
    assert every.shape == (6 * TILE, 2 * TILE, 3)
    preview(data, TASKS["detection"], out, count=2)  # evenly over the images: the first and the last
    np.testing.assert_array_equal(read(out), np.concatenate([every[:TILE], every[-TILE:]]))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CompressError, match="cannot hold files"):
        check(CONFIG.validate_python(SYNTHETIC), 0, tmp_path / "file" / "sheet.png")


@pytest.mark.parametrize(
    ("total", "count", "numbers"),
    [(0, 3, []), (5, 1, [0]), (5, 2, [0, 4]), (9, 3, [0, 4, 8]), (3, 8, [0, 1, 2]), (850, 850, [*range(850)])],
)
def test_numbers_lie_evenly_and_each_once(total, count, numbers):
    assert evenly(total, count) == numbers
