"""Views of lines to read: exact sizes, nothing changed where nothing is asked for, limits that are kept, lines joined with their texts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from compress.data.lines.augment_text import AugmentText, augment_text, bent_edges, joined, source_places
from compress.data.prepare import fit_into
from compress.data.split import Annotation, Split
from compress.data.training import TrainingSet
from compress.models.contract import Input, Line, Sample
from compress.models.registry import build

SIZE = (48, 192)
WANTED = Input(mean=(0.2, 0.5, 0.8))
STILL = AugmentText(distort=0, brightness=0, saturation=0, noise=0, blur=0, bend=0, stretch=0, crop=0, invert=0)


def view(image: np.ndarray, config: AugmentText = STILL, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return augment_text(Sample("a", image, Line("x")), config, size, WANTED, np.random.default_rng(seed)).image


def noise(height: int, width: int) -> np.ndarray:
    """Smooth noise."""
    coarse = np.random.default_rng(0).integers(40, 216, (max(2, height // 6), max(2, width // 6), 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("shape", [(48, 192), (30, 60), (48, 100), (100, 100), (20, 400), (33, 7)])
def test_without_any_change_a_view_is_what_inference_shows(shape):
    image = noise(*shape)
    assert np.abs(view(image).astype(int) - fit_into(image, SIZE, WANTED.mean)).max() <= 2


@pytest.mark.parametrize("shape", [(48, 192), (20, 30), (1, 1), (2, 3000), (500, 20), (3, 200)])
@pytest.mark.parametrize("size", [(48, 192), (32, 100), (16, 16)])
def test_every_image_gives_a_view_of_the_size(shape, size):
    strongest = AugmentText(distort=0.3, noise=70, blur=10, bend=0.3, stretch=0.45, crop=0.3, invert=0.5)
    for seed in range(5):
        found = view(np.full((*shape, 3), 90, np.uint8), strongest, seed, size)
        assert found.shape == (*size, 3)
        assert found.dtype == np.uint8


def test_a_view_is_decided_by_the_generator_alone_and_the_padding_is_left_alone():
    image = noise(48, 100)
    views = [view(image, AugmentText(invert=0.5), seed) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).any()
    assert all((one[:, 100:] == (51, 128, 204)).all() for one in views)


def test_colours_are_inverted_as_often_as_asked_for():
    image = noise(48, 192)
    inverted = [view(image, STILL.model_copy(update={"invert": 0.25}), seed) for seed in range(200)]
    shares = [np.abs(one.astype(int) - (255 - image.astype(int))).max() <= 2 for one in inverted]
    assert 0.15 < np.mean(shares) < 0.35


def test_text_is_never_mirrored_or_turned_over():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        edges = bent_edges((40, 160), AugmentText(distort=0.1, bend=0.1, stretch=0.3, crop=0.1), rng)
        assert (np.diff(edges[..., 0], axis=1) > 0).all()
        assert (edges[1, :, 1] - edges[0, :, 1] > 10).all()


def test_points_come_to_lie_where_the_edges_say():
    edges = np.array([[(3.0, 2.0), (50.0, 5.0), (90.0, 1.0)], [(0.0, 40.0), (60.0, 44.0), (95.0, 41.0)]])
    places = source_places(edges, (21, 81))
    assert places.dtype == np.float32
    middle = (edges[0, 1] + edges[1, 1]) / 2 - 0.5  # of the column in the middle, half of the way down
    np.testing.assert_allclose(places[10, 40], middle, atol=1e-4)
    first = edges[0, 0] + (edges[0, 1] - edges[0, 0]) * 0.5 / 40.5
    below = edges[1, 0] + (edges[1, 1] - edges[1, 0]) * 0.5 / 40.5
    np.testing.assert_allclose(places[0, 0], first + (below - first) * 0.5 / 21 - 0.5, atol=1e-4)


def test_two_lines_become_one_where_both_fit():
    left, right = Sample("l", noise(48, 60), Line("ab")), Sample("r", noise(24, 40), Line("C"))
    always = STILL.model_copy(update={"join": 1.0})
    both = joined(left, lambda: right, always, SIZE, np.random.default_rng(0))
    assert both.truth == Line("abC")
    assert both.image.shape == (48, 60 + 80, 3)
    np.testing.assert_array_equal(both.image[:, :60], left.image)
    wide = Sample("w", noise(48, 140), Line("w"))
    assert joined(left, lambda: wide, always, SIZE, np.random.default_rng(0)) is left, "together wider than the input"
    assert joined(left, lambda: right, STILL, SIZE, np.random.default_rng(0)) is left


def test_a_training_set_joins_lines_by_its_seed_alone():
    lines = [Annotation(f"line_{place}", Line(text)) for place, text in enumerate(("ab", "cd", "ef"))]
    split = Split("train", lines, lambda place: noise(16, 20 + place), "digest")
    algorithm = build({"name": "crnn", "alphabet": "en"})
    first, second = (TrainingSet(split, algorithm, AugmentText(join=0.5), (32, 128), 7) for _ in range(2))
    texts = [first.view(epoch, place).truth.text for epoch in range(20) for place in range(3)]
    assert texts == [second.view(epoch, place).truth.text for epoch in range(20) for place in range(3)]
    assert {len(text) for text in texts} == {2, 4}
    assert all(text[place : place + 2] in ("ab", "cd", "ef") for text in texts for place in range(0, len(text), 2))
    found = first[0, 1]
    assert found["image"].shape == (32, 128, 3)
    assert int(found["length"]) in (2, 4)
