"""Synthetic scenes are the same images for good, whatever moves in the code: their weights in caches and their figures depend on it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from compress.data.detection.synthetic import draw
from compress.data.rendering import background, clutter, library_versions

MADE_WITH = "opencv 5.0.0 matplotlib 3.11.2"
SCENES = "fbc765795272b635c471242c8c857ec8f2185fbd7c6253f1f9fb9702eaa3ad4a"
TRUTHS = "8bf8e02682d77ca3368da79322f0251c17f3dcec9d4faca7c739368c2e2b6b33"


def digests() -> tuple[str, str]:
    """sha256 of the pixels, and of the words, of some scenes."""
    pixels, words = hashlib.sha256(), hashlib.sha256()
    for seed, split, index, size, curved in (
        (0, "train", 0, 320, 0.0),
        (3, "val", 5, 192, 0.0),
        (1, "test", 7, 320, 1.0),
        (2, "train", 11, 64, 0.5),
    ):
        annotation, image = draw(seed, split, index, size, curved)
        pixels.update(image.tobytes())
        words.update(repr([annotation.truth.texts, annotation.truth.ignore.tolist()]).encode())
        words.update(repr([np.round(polygon, 1).tolist() for polygon in annotation.truth.polygons]).encode())
    return pixels.hexdigest(), words.hexdigest()


def test_scenes_are_what_they_were():
    if library_versions() != MADE_WITH:
        pytest.skip(f"recorded with {MADE_WITH}, which another version may draw otherwise")
    assert digests() == (SCENES, TRUTHS)


def test_backgrounds_and_clutter_of_any_shape():
    for shape in ((16, 16), (48, 900), (32, 10), (320, 320)):
        for seed in range(30):
            rng = np.random.default_rng(seed)
            image = background(*shape, rng)
            assert image.shape == (*shape, 3)
            clutter(image, rng)
