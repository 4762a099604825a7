"""Detections drawn on pictures."""

from __future__ import annotations

import cv2
import numpy as np

from compress.models.contract import Detections

COLOUR = (0, 220, 0)


def draw(image: np.ndarray, found: Detections) -> np.ndarray:
    """A copy of an (H, W, 3) uint8 RGB picture with every polygon outlined, thicker on larger pictures."""
    canvas = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 640))
    for polygon in found.polygons:
        cv2.polylines(canvas, [np.round(polygon).astype(np.int32)], True, COLOUR, thickness, cv2.LINE_AA)
    return canvas
