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


def area(polygon: np.ndarray) -> float:
    """Shoelace formula, without a sign."""
    x, y = (polygon - polygon[0]).T.astype(np.float64)
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def perimeter(polygon: np.ndarray) -> float:
    """Length of the closed outline."""
    return float(np.hypot(*(polygon - np.roll(polygon, -1, 0)).T).sum())


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


def fill(canvas: np.ndarray, polygons: Sequence[np.ndarray], value: float) -> None:
    """Paint the insides and the outlines of `polygons` on the (H, W) `canvas`, in place, to a sixteenth of a pixel."""
    cv2.fillPoly(canvas, [subpixels(polygon) for polygon in polygons], value, shift=FRACTION_BITS)


def subpixels(polygon: np.ndarray) -> np.ndarray:
    """Coordinates as OpenCV's drawing takes them with `shift=FRACTION_BITS`."""
    return np.rint(polygon * SUBPIXELS).astype(np.int32)


def rectangles(centres: np.ndarray, sides: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Corners, (n, 4, 2), of rectangles with (n, 2) centres and sides and (n,) angles in degrees, as `cv2.minAreaRect` gives them.

    Clockwise on the screen, beginning with the corner that is nearest to the top left one of the picture.
    """
    radians = np.radians(angles)
    cosine, sine = np.cos(radians), np.sin(radians)
    across = 0.5 * sides[:, :1] * np.stack([cosine, sine], 1)
    down = 0.5 * sides[:, 1:] * np.stack([-sine, cosine], 1)
    corners = centres[:, None] + np.stack([-across - down, across - down, across + down, down - across], 1)
    first = corners.sum(2).argmin(1)
    return np.take_along_axis(corners, ((first[:, None] + np.arange(4)) % 4)[:, :, None], 1)
