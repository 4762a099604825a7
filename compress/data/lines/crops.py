"""Word images cut from scenes: the words of any detection data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from compress.data.split import Annotation, Split
from compress.models.contract import Line

UPRIGHT = 1.5  # height over width from which on a word is taken to run down, and turned (Du et al. 2020, "PP-OCR")
LARGEST = 4  # areas of the whole image
SIDE = (1 << 15) - 2  # pixels; OpenCV 4 warps no image, and into none, that has more on a side
MARGIN = 4  # pixels around a word that its edges are interpolated from


def crops(
    scenes: Split, problems: list[str], progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[Annotation, np.ndarray]]:
    """The legible words of all images, (h, w, 3) uint8 RGB, with their texts; what cannot be cut is added to `problems`.

    progress: called with (images done, images in all).
    """
    for done, annotation in enumerate(scenes.annotations):
        image, words = scenes.image(done), annotation.truth
        texts = words.texts or [""] * len(words.polygons)
        for number, (polygon, text, ignored) in enumerate(zip(words.polygons, texts, words.ignore, strict=True), 1):
            if ignored:
                continue
            try:
                if not text.strip():
                    raise ValueError("has no text")
                if any(mark in text for mark in "\t\r\n"):
                    raise ValueError("has a text with a tab or a line break")
                yield Annotation(f"{annotation.name}_{number}", Line(text)), crop(image, polygon)
            except ValueError as error:
                problems.append(f"{annotation.name}: word {number} {error}")
        if progress:
            progress(done + 1, len(scenes))


def crop(image: np.ndarray, polygon: np.ndarray, upright: float = UPRIGHT) -> np.ndarray:
    """The word inside the (n, 2) polygon made upright, bicubic, and turned by 90 degrees counter-clockwise where it runs down.

    upright: height over width from which on it is taken to run down. A pixel beyond the image's edge is as the nearest one inside.
    Raises ValueError, saying what is wrong with the word.
    """
    if (polygon.max(0) < 0).any() or (polygon.min(0) > np.array(image.shape[1::-1]) - 1).any():
        raise ValueError("lies outside of its image")
    quad = corners(polygon)
    sides = np.linalg.norm(np.roll(quad, -1, axis=0) - quad, axis=1)
    width, height = (max(1, round(float(max(sides[place], sides[place + 2])))) for place in (0, 1))
    if width * height > LARGEST * image.shape[0] * image.shape[1]:
        raise ValueError(f"is {width} x {height} pixels, larger than its image")
    if max(width, height) > SIDE:
        raise ValueError(f"is {width} x {height} pixels, of which a side may have {SIDE}")
    if max(image.shape[:2]) > SIDE:
        image, quad = surroundings(image, quad)
    target = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    matrix = cv2.getPerspectiveTransform(quad, target)
    word = cv2.warpPerspective(image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(np.rot90(word)) if height >= upright * width else word


def surroundings(image: np.ndarray, quad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image that the (4, 2) quad and a margin lie in, and the quad as it lies there."""
    limit = image.shape[1::-1]
    (left, top), (right, bottom) = (
        np.clip(edge.astype(int), 0, limit) for edge in (np.floor(quad.min(0)) - MARGIN, np.ceil(quad.max(0)) + MARGIN + 1)
    )
    return image[top:bottom, left:right], quad - np.array((left, top), np.float32)


def corners(polygon: np.ndarray) -> np.ndarray:
    """(4, 2) float32, clockwise on the screen from the corner where reading begins, so that no word is mirrored.

    Of four corners that are convex the polygon itself; of others the rectangle of least area, whose upper side is the one along the first
    half of the polygon, which is above the word.
    """
    points = polygon.astype(np.float32)
    if len(points) == 4 and cv2.isContourConvex(points):
        return points if cv2.contourArea(points, oriented=True) > 0 else points[[0, 3, 2, 1]]
    box = cv2.boxPoints(cv2.minAreaRect(points))
    if cv2.contourArea(box, oriented=True) < 0:
        box = box[::-1]
    ends = points[[0, len(points) // 2 - 1]]
    turned = [np.roll(box, step, axis=0) for step in range(4)]
    return min(turned, key=lambda corners: float(np.linalg.norm(corners[:2] - ends, axis=1).sum()))
