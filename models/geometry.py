"""Plane geometry that detectors share: areas, growing and shrinking of polygons, rectangles of least area.

Polygons are (n, 2) arrays of x, y in pixels, n >= 3, of either orientation. The coordinates of a pixel are those of its centre.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pyclipper

# Clipper and OpenCV's fills calculate in integers: both take sixteenths of a pixel.
FRACTION_BITS = 4
SUBPIXELS = 1 << FRACTION_BITS

UNIT_SQUARE = np.array([[-0.5, 0.5, 0.5, -0.5], [-0.5j, -0.5j, 0.5j, 0.5j]])


def area(polygon: np.ndarray) -> float:
    """Area by the shoelace formula, without a sign."""
    return cv2.contourArea(np.asarray(polygon, np.float32))


def perimeter(polygon: np.ndarray) -> float:
    """Length of the closed outline."""
    return cv2.arcLength(np.asarray(polygon, np.float32), True)


def short_side(polygon: np.ndarray) -> float:
    """Shorter side of the rectangle of least area around `polygon`."""
    return min(cv2.minAreaRect(np.asarray(polygon, np.float32))[1])


def offset(polygon: np.ndarray, distance: float) -> list[np.ndarray]:
    """`polygon` grown (or shrunk, where negative) by `distance` pixels, with round corners: Vatti's clipping algorithm.

    Gives any number of polygons, largest first: shrinking can divide one, or leave nothing.
    """
    clipper = pyclipper.PyclipperOffset(arc_tolerance=0.25 * SUBPIXELS)
    clipper.AddPath(np.rint(polygon * SUBPIXELS).astype(np.int64).tolist(), pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    grown = [np.array(path, np.float64) / SUBPIXELS for path in clipper.Execute(distance * SUBPIXELS)]
    return sorted(grown, key=area, reverse=True)


def shrunk(polygon: np.ndarray, ratio: float) -> list[np.ndarray]:
    """`polygon` shrunk by area * (1 - ratio^2) / perimeter, as :func:`offset` gives it; nothing for one without an area.

    The distance of PSENet (Wang et al. 2019, equation 1), which DB has taken over: a long word keeps about `ratio` of its height.
    """
    around = perimeter(polygon)
    distance = area(polygon) * (1 - ratio**2) / around if around else 0.0
    return offset(polygon, -distance) if distance else []


def fill(canvas: np.ndarray, polygons: Sequence[np.ndarray], value: float) -> None:
    """Paint the insides and the outlines of `polygons` on the (H, W) `canvas`, in place, to a sixteenth of a pixel."""
    cv2.fillPoly(canvas, [subpixels(polygon) for polygon in polygons], value, shift=FRACTION_BITS)


def subpixels(polygon: np.ndarray) -> np.ndarray:
    """Coordinates as OpenCV's drawing takes them with `shift=FRACTION_BITS`."""
    return np.rint(polygon * SUBPIXELS).astype(np.int32)


def rectangles(centres: np.ndarray, sides: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Corners, (..., n, 4, 2), of rectangles as `cv2.minAreaRect` gives them: centres (n, 2), sides (..., n, 2), angles (n,) in degrees.

    Clockwise on the screen, beginning with the corner that is nearest to the top left one of the image.
    """
    quarters = np.rint(angles / 90)
    sides = np.where(quarters[:, None] % 2, sides[..., ::-1], sides)
    # x + iy: the corners of an upright rectangle around 0, then turned by at most an eighth, then moved.
    turns = np.exp(1j * np.radians(angles - 90 * quarters))
    corners = (sides @ UNIT_SQUARE) * turns[:, None] + (centres @ (1, 1j))[:, None]
    return corners[..., None].view(np.float64)
