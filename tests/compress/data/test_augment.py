from __future__ import annotations

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from compress.data.detection.augment import Augment, augment, clip
from compress.models.contract import Sample, Words

STILL = Augment(scales=(1.0,), cover=0.1, rotate=0, flip=0, brightness=0, saturation=0)


def quad(x: float, y: float, w: float, h: float) -> np.ndarray:
    return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], np.float32)


def words(image: np.ndarray, *polygons: np.ndarray, ignore=()) -> Sample:
    return Sample("p", image, Words(list(polygons), np.isin(np.arange(len(polygons)), ignore), [str(n) for n in range(len(polygons))]))


def scene(seed: int = 0, height: int = 240, width: int = 400, count: int = 9) -> Sample:
    """Words that are filled with a colour of their own on black, so that pixels tell which word they are of."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.uint8)
    polygons = []
    for number in range(count):
        column, row = number % 3, number // 3
        box = quad(column * width // 3 + rng.integers(5, 20), row * height // 3 + rng.integers(5, 20), width // 5, height // 8)
        image = cv2.fillPoly(image, [box.round().astype(np.int32)], (60 + 20 * number,) * 3)
        polygons.append(box)
    return words(image, *polygons, ignore=(4,))


def plain_view(sample: Sample, config: Augment, crop: int, seed: int) -> Sample:
    return augment(sample, config, crop, np.random.default_rng(seed))


@pytest.mark.parametrize("crop", [64, 97, 160, 320])
@pytest.mark.parametrize("config", [Augment(), STILL, Augment(scales=(0.3, 4.0), cover=0.5, rotate=180)])
def test_a_view_is_exactly_the_crop_and_its_words_are_inside(crop, config):
    for seed in range(12):
        view = plain_view(scene(), config, crop, seed)
        assert view.image.shape == (crop, crop, 3)
        assert view.image.dtype == np.uint8
        assert view.image.flags.c_contiguous
        assert len(view.truth.polygons) == len(view.truth.ignore) == len(view.truth.texts)
        for polygon in view.truth.polygons:
            assert polygon.dtype == np.float32
            assert polygon.shape[0] >= 3
            assert polygon.min() >= 0
            assert polygon.max() <= crop - 1


def test_the_same_generator_gives_the_same_view_and_leaves_the_sample_alone():
    sample = scene()
    before = sample.image.copy(), [polygon.copy() for polygon in sample.truth.polygons]
    sample.image.flags.writeable = False  # as from the memory-mapped cache
    views = [plain_view(sample, Augment(), 128, seed) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(views[0].image, views[1].image)
    assert views[0].image.tobytes() != views[2].image.tobytes()
    np.testing.assert_array_equal(sample.image, before[0])
    np.testing.assert_array_equal(sample.truth.polygons, before[1])


@pytest.mark.parametrize(("scale", "crop"), [(1.0, 150), (0.4, 150), (1.7, 200), (2.0, 240), (3.0, 331), (4.5, 480)])
def test_polygons_and_pixels_go_through_the_same_matrix(scale, crop):
    config = Augment(scales=(scale,), cover=0.1, rotate=20, flip=0.5, brightness=0, saturation=0)
    seen = 0
    for seed in range(20):
        view = plain_view(scene(seed), config, crop, seed)
        for polygon, skip, text in zip(view.truth.polygons, view.truth.ignore, view.truth.texts, strict=True):
            if skip:
                continue
            level = 60 + 20 * int(text)
            drawn = cv2.fillPoly(np.zeros((crop, crop), np.uint8), [polygon.round().astype(np.int32)], 1) == 1
            shown = np.abs(view.image[..., 0].astype(int) - level) <= 6
            both = (drawn & shown).sum()
            # Borders are blended over about a pixel of the image and rounded to one of the crop.
            edge = (1.5 + 0.7 * scale) * cv2.arcLength(polygon, True)
            assert drawn.sum() - both <= edge
            assert (drawn & shown).sum() > 0.4 * drawn.sum()
            seen += 1
    assert seen > 10


@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_enlarging_in_two_steps_shows_what_one_warp_shows(scale):
    """A smooth image, so that bilinear samples of it agree wherever they are taken."""
    y, x = np.mgrid[0:120, 0:160].astype(np.float32)
    image = np.stack([127 + 120 * np.sin(x / 15), 127 + 120 * np.cos(y / 12), 60 + x], axis=2).astype(np.uint8)
    config = Augment(scales=(scale,), cover=0.1, rotate=0, flip=0, brightness=0, saturation=0)
    for crop in (96, 97):
        for seed in range(5):
            view = plain_view(words(image, quad(70, 50, 4, 4)), config, crop, seed)
            left, top = np.array([70, 50]) * scale + (scale - 1) / 2 - view.truth.polygons[0][0]
            x, y = ((np.arange(crop, dtype=np.float32) + start + 0.5) / scale - 0.5 for start in (left, top))
            expected = cv2.remap(image, *np.float32(np.meshgrid(x, y)), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            inner = slice(4, -4)
            np.testing.assert_allclose(view.image[inner, inner].astype(int), expected[inner, inner].astype(int), atol=8)


def test_shrinking_averages_instead_of_skipping():
    image = np.zeros((400, 400, 3), np.uint8)
    image[:, ::4] = 200  # one column in four: a mean of 50
    config = Augment(scales=(0.25,), cover=0.1, rotate=0, flip=0, brightness=0, saturation=0)
    view = plain_view(words(image), config, 100, 0)
    np.testing.assert_allclose(view.image[2:-2, 2:-2], 50, atol=2)


def test_no_word_is_cut_where_there_is_a_place_for_the_crop_that_cuts_none():
    cut = whole = 0
    for seed in range(60):
        view = plain_view(scene(seed), STILL.model_copy(update={"tries": 200}), 150, seed)
        cut += int((view.truth.ignore & (np.array(view.truth.texts) != "4")).sum())
        whole += int((~view.truth.ignore).sum())
    assert whole >= 60  # every view shows one
    assert cut <= 2


def test_words_that_are_cut_become_do_not_care():
    image = np.zeros((100, 300, 3), np.uint8)
    view = plain_view(words(image, quad(5, 40, 290, 20)), STILL, 100, 0)
    assert view.truth.ignore.tolist() == [True]
    assert view.truth.polygons[0][:, 1].min() == 40
    assert view.truth.polygons[0][:, 1].max() == 60


def test_do_not_care_words_do_not_steer_the_crop_and_stay_do_not_care():
    image = np.zeros((200, 200, 3), np.uint8)
    sample = words(image, quad(10, 10, 20, 10), quad(150, 150, 20, 10), ignore=(0,))
    for seed in range(10):
        view = plain_view(sample, STILL, 60, seed)
        assert view.truth.texts == ["1"]
        assert not view.truth.ignore.any()
    whole = plain_view(sample, STILL, 200, 0)
    assert whole.truth.ignore.tolist() == [True, False]


def test_images_without_words_and_images_smaller_than_the_crop():
    for height, width in ((10, 30), (200, 40), (1, 1), (300, 500)):
        view = plain_view(words(np.full((height, width, 3), 90, np.uint8)), Augment(), 64, 0)
        assert view.image.shape == (64, 64, 3)
        assert view.truth.polygons == []
        assert view.truth.ignore.dtype == bool
    small = plain_view(words(np.full((20, 20, 3), 90, np.uint8), quad(4, 4, 10, 10)), STILL, 64, 0)
    assert not small.truth.ignore.any()
    assert (small.image == 90).all(axis=2).sum() == 400  # all of it, the rest is black


def side(view: Sample) -> float:
    return float(np.linalg.norm(view.truth.polygons[0][1] - view.truth.polygons[0][0]))


def test_scales_are_drawn_from_the_list_within_the_limits():
    sample = words(np.zeros((200, 300, 3), np.uint8), quad(140, 95, 6, 6))
    for scales, cover, min_side, expected in (
        ((0.5, 1.0, 2.0), 0.1, 0.01, {3, 6, 12}),
        ((0.5, 1.0, 2.0), 1.5, 0.01, {4.5, 6, 12}),  # 150 of 200 pixels at least
        ((3.0, 20.0), 0.1, 0.1, {18, 30}),  # the crop covers 20 pixels at least
    ):
        config = Augment(scales=scales, cover=cover, min_side=min_side, rotate=0, flip=0)
        found = {round(side(plain_view(sample, config, 100, seed)), 2) for seed in range(30)}
        assert found == expected


def test_mirroring_and_turning_happen_as_often_and_as_far_as_asked():
    sample = words(np.zeros((200, 200, 3), np.uint8), quad(90, 95, 20, 10))
    config = STILL.model_copy(update={"rotate": 15.0, "flip": 0.25})
    mirrored, angles = 0, []
    for seed in range(400):
        points = plain_view(sample, config, 200, seed).truth.polygons[0]
        mirrored += cv2.contourArea(points, oriented=True) < 0
        along = points[1] - points[0]
        angles.append(np.degrees(np.arctan2(along[1], abs(along[0]))))
    assert 0.17 < mirrored / 400 < 0.33
    assert 13 < np.abs(angles).max() <= 15.01
    assert abs(np.mean(angles)) < 2


def test_colours_stay_within_the_asked_change():
    image = np.full((50, 50, 3), (120, 60, 180), np.uint8)
    grey = 0.299 * 120 + 0.587 * 60 + 0.114 * 180
    brightness, saturation = [], []
    for seed in range(200):
        config = STILL.model_copy(update={"brightness": 0.1, "saturation": 0.4})
        red, green, blue = plain_view(words(image), config, 50, seed).image[25, 25].astype(float)
        bright = (0.299 * red + 0.587 * green + 0.114 * blue) / grey
        brightness.append(bright)
        saturation.append((blue - green) / (180 - 60) / bright)
    assert 0.89 < min(brightness) < 0.92
    assert 1.08 < max(brightness) < 1.11
    assert 0.58 < min(saturation) < 0.64
    assert 1.36 < max(saturation) < 1.42
    still = plain_view(words(image), STILL, 50, 0).image
    np.testing.assert_array_equal(still, image)


def test_clipping_agrees_with_shapely():
    from shapely.geometry import Polygon, box

    rng = np.random.default_rng(0)
    for _ in range(100):
        centre, radii = rng.uniform(-20, 120, 2), rng.uniform(10, 60, 6)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 6))
        hull = cv2.convexHull((centre + radii[:, None] * np.c_[np.cos(angles), np.sin(angles)]).astype(np.float32))[:, 0]
        expected = Polygon(hull).intersection(box(0, 0, 99, 99)).area
        ours = clip(hull, 99)
        assert (Polygon(ours).area if len(ours) else 0) == pytest.approx(expected, rel=1e-3, abs=1e-2)


def test_wrong_settings_are_refused():
    for wrong in (
        {"scales": ()},
        {"scales": (0.0,)},
        {"flip": 1.5},
        {"rotate": -1},
        {"tries": 0},
        {"saturation": 2},
        {"brightness": 1},
        {"min_side": 0},
        {"cover": 0},
        {"hue": 181},
        {"contrast": 1},
        {"invert": -0.1},
        {"noise": 71},
        {"blur": -1},
        {"sharpness": 0.1},
    ):
        with pytest.raises(ValidationError):
            Augment(**wrong)


def colours_of(config: Augment, colour: tuple[int, int, int], seeds: int = 60) -> np.ndarray:
    """The colour that views of an image of one colour have, (seeds, 3)."""
    image = np.full((64, 64, 3), colour, np.uint8)
    return np.array([plain_view(words(image), config, 32, seed).image[16, 16] for seed in range(seeds)], float)


def test_contrast_goes_as_far_as_it_says_about_the_middle_grey():
    config = STILL.model_copy(update={"contrast": 0.4})
    factors = (colours_of(config, (180, 120, 60)) - 127.5) / (np.array([180, 120, 60]) - 127.5)
    np.testing.assert_allclose(factors[:, 0], factors[:, 2], atol=0.03)  # one factor for all three colours
    assert 0.59 < factors[:, 0].min() < 0.65
    assert 1.35 < factors[:, 0].max() < 1.41


def test_a_negative_has_what_is_left_to_white():
    config = STILL.model_copy(update={"invert": 0.5})
    found = colours_of(config, (180, 120, 60), 200)
    negative = (found == (75, 135, 195)).all(1)
    assert ((found == (180, 120, 60)).all(1) | negative).all()
    assert 0.4 < negative.mean() < 0.6


def test_hues_turn_and_greys_stay():
    config = STILL.model_copy(update={"hue": 180})
    np.testing.assert_array_equal(colours_of(config, (90, 90, 90)), 90)
    found = colours_of(config, (180, 120, 60))
    np.testing.assert_allclose(found.sum(1), 360, atol=1.5)  # as bright as before
    np.testing.assert_allclose(np.linalg.norm(found - 120, axis=1), 60 * np.sqrt(2), atol=1.5)  # as vivid as before
    assert found[:, 0].min() < 60
    assert found[:, 2].max() > 180
    slight = colours_of(STILL.model_copy(update={"hue": 10}), (180, 120, 60))
    assert 1 < np.abs(slight - (180, 120, 60)).max() < 16


def test_noise_and_blur_change_pixels_and_leave_the_words():
    config = STILL.model_copy(update={"noise": 20.0})
    spread = [plain_view(words(np.full((64, 64, 3), 128, np.uint8)), config, 64, seed).image.std() for seed in range(60)]
    assert min(spread) < 3
    assert 17 < max(spread) < 21
    sample = scene()
    sharp, soft = (plain_view(sample, STILL.model_copy(update={"blur": blur}), 128, 1) for blur in (0.0, 3.0))
    assert np.abs(np.diff(soft.image.astype(float), axis=1)).max() < np.abs(np.diff(sharp.image.astype(float), axis=1)).max()
    for one, other in zip(sharp.truth.polygons, soft.truth.polygons, strict=True):
        np.testing.assert_array_equal(one, other)
