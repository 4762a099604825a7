"""Views of lines: exact sizes, the padding of inference, seeds, limits that are kept, and nothing mirrored."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from compress.data.lines.augment import AugmentLine, augment_line
from compress.data.prepare import fit_into
from compress.models.contract import Input, Line, Sample

SIZE = (48, 192)
WANTED = Input(mean=(0.2, 0.5, 0.8))
STILL = AugmentLine(distort=0, brightness=0, saturation=0, noise=0, blur=0)


def view(image: np.ndarray, config: AugmentLine = STILL, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return augment_line(Sample("a", image, Line("x")), config, size, WANTED, np.random.default_rng(seed)).image


def noise(height: int, width: int) -> np.ndarray:
    """Smooth noise."""
    coarse = np.random.default_rng(0).integers(40, 216, (max(2, height // 6), max(2, width // 6), 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("shape", [(48, 192), (30, 60), (48, 100), (100, 100), (20, 400), (33, 7)])
def test_without_any_change_a_view_is_what_inference_shows(shape):
    image = noise(*shape)
    found, expected = view(image), fit_into(image, SIZE, WANTED.mean)
    assert found.shape == expected.shape == (48, 192, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_the_padding_is_left_alone():
    image = noise(48, 100)
    for seed in range(20):
        found = view(image, AugmentLine(distort=0.2, noise=30, blur=2), seed)
        assert (found[:, 100:] == np.array([51, 128, 204])).all()
        assert found[:, :100].std() > 5


def test_a_view_is_decided_by_the_generator_alone():
    image = noise(40, 90)
    views = [view(image, AugmentLine(), seed) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).any()


@pytest.mark.parametrize("shape", [(48, 192), (20, 30), (1, 1), (2, 3000), (500, 20), (3, 200)])
@pytest.mark.parametrize("size", [(48, 192), (32, 100), (16, 16)])
def test_every_image_gives_a_view_of_the_size(shape, size):
    for seed in range(5):
        found = view(np.full((*shape, 3), 90, np.uint8), AugmentLine(distort=0.3, noise=70, blur=10), seed, size)
        assert found.shape == (*size, 3)
        assert found.dtype == np.uint8


def test_words_are_neither_mirrored_nor_turned_over():
    image = np.zeros((48, 192, 3), np.uint8)
    image[8:20, 20:60], image[8:20, 130:170], image[28:40, 20:60] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    config = AugmentLine(distort=0.3, brightness=0, saturation=0, noise=0, blur=0)
    for seed in range(100):
        found = view(image, config, seed)
        red, green, blue = (np.argwhere(found[..., channel] > 120).mean(0) for channel in range(3))
        assert red[1] + 20 < green[1]
        assert red[0] + 5 < blue[0]


def test_corners_move_as_far_as_asked_and_no_further():
    """In an image that says of each pixel where it is, the corners of a view tell what has come there."""
    rows, columns = np.mgrid[:48, :192]
    image = np.stack([columns, 5 * rows, 0 * rows], 2).astype(np.uint8)
    config = AugmentLine(distort=0.1, brightness=0, saturation=0, noise=0, blur=0)
    views = np.array([view(image, config, seed)[[0, 0, 47, 47], [0, 191, 191, 0]] for seed in range(300)], float)
    moves = np.abs(views[..., :2] / (1, 5) - [(0, 0), (191, 0), (191, 47), (0, 47)])
    assert moves.max() < 4.8 * 1.6, "4.8 pixels of the view, which the perspective makes a few more or less of the image"
    assert (moves.max((0, 1)) > 4.8 * 0.8).all()
    assert 0.3 < (moves == 0).mean() < 0.6, "half of the corners move inwards, and show what is at the edge"


def test_colours_stay_within_the_asked_change():
    image = np.full((48, 192, 3), (120, 60, 180), np.uint8)
    grey = 0.299 * 120 + 0.587 * 60 + 0.114 * 180
    brightness, saturation = [], []
    for seed in range(300):
        config = AugmentLine(distort=0, brightness=0.1, saturation=0.4, noise=0, blur=0)
        red, green, blue = view(image, config, seed)[20, 100].astype(float)
        bright = (0.299 * red + 0.587 * green + 0.114 * blue) / grey
        brightness.append(bright)
        saturation.append((blue - green) / (180 - 60) / bright)
    assert 0.89 < min(brightness) < 0.92
    assert 1.08 < max(brightness) < 1.11
    assert 0.58 < min(saturation) < 0.64
    assert 1.36 < max(saturation) < 1.42


def test_noise_is_as_strong_as_asked_and_about_nothing():
    image = np.full((48, 192, 3), 128, np.uint8)
    deviations, means = [], []
    for seed in range(100):
        found = view(image, AugmentLine(distort=0, brightness=0, saturation=0, noise=20, blur=0), seed).astype(float)
        deviations.append(found.std())
        means.append(found.mean())
    assert 18 < max(deviations) < 20.5
    assert min(deviations) < 3
    assert 8 < np.mean(deviations) < 12
    assert np.abs(np.array(means) - 128).max() < 1.5


def test_blur_is_that_of_a_gaussian():
    """A sharp edge blurred by a Gaussian of deviation d has its steepest slope at 255 / (d sqrt(2 pi))."""
    image = np.zeros((48, 192, 3), np.uint8)
    image[:, 96:] = 255
    slopes = []
    for seed in range(100):
        row = view(image, AugmentLine(distort=0, brightness=0, saturation=0, noise=0, blur=3), seed)[24, :, 0].astype(float)
        slopes.append(np.diff(row).max())
    assert 0.95 < min(slopes) / (255 / (3 * math.sqrt(2 * math.pi))) < 1.1
    assert max(slopes) > 250, "little blur is none"


def test_wrong_settings_are_refused():
    for wrong in ({"distort": 0.4}, {"brightness": 1}, {"saturation": -1}, {"noise": 100}, {"blur": -1}, {"flip": 0.5}):
        with pytest.raises(ValidationError):
            AugmentLine(**wrong)
