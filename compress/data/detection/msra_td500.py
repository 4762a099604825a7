"""MSRA-TD500 (Yao et al. 2012): long lines of text in any direction as turned rectangles, `difficulty` 1 for do-not-care.

A line of a `.gt` file is `index difficulty x y w h theta`: the left top corner and the size, in pixels, of an upright rectangle, and the
angle in radians, clockwise on the screen, by which it is turned about its centre. There are no transcriptions.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from compress.data.detection.folder import FilePerImage, Files, Word, annotated, numbered_lines, outlined
from compress.data.split import Annotation

UNIT = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
EXACT = 0.01  # pixels a corner may lie beside that of the rectangle that is written for it


class MsraTd500(FilePerImage):
    """The data set in the folder `root`: `train` and `test`, each with images and their `.gt` files."""

    images: ClassVar = {"train": ("train",), "test": ("test",)}
    truths: ClassVar = images
    truth_suffixes: ClassVar = (".gt",)
    written: ClassVar = "{}.gt"
    expected: ClassVar = "a folder train of images and .gt files"
    stored: ClassVar = True

    format: Literal["msra_td500"]

    def words(self, file: Files, problems: list[str]) -> Annotation | None:
        lines = numbered_lines(file, problems)
        return None if lines is None else annotated(file.name, lines, word, problems)

    def rendered(self, words: Annotation) -> bytes:
        lines = []
        for index, (polygon, text, skip) in enumerate(zip(words.truth.polygons, words.truth.texts, words.truth.ignore, strict=True)):
            values = turned_rectangle(polygon, text)
            lines.append(" ".join([str(index), str(int(skip)), *(f"{value:.9g}" for value in values)]) + "\n")
        return "".join(lines).encode()


def word(line: str) -> Word:
    """One line of a `.gt` file. Raises ValueError, saying what is wrong."""
    fields = line.split()
    if len(fields) != 7 or fields[1] not in ("0", "1"):
        raise ValueError("an index, a difficulty of 0 or 1, x, y, w, h and an angle are needed")
    try:
        x, y, w, h, angle = (float(value) for value in fields[2:])
    except ValueError:
        raise ValueError(f"not all of {' '.join(fields[2:])} are numbers") from None
    if not math.isfinite(angle):
        raise ValueError(f"the angle {fields[6]} is not finite")
    return outlined(corners(x, y, w, h, angle).ravel().tolist(), "").reshape(4, 2), "", fields[1] == "1"


def corners(x: float, y: float, w: float, h: float, angle: float) -> np.ndarray:
    """(4, 2) corners of the turned rectangle, from the one that is left and above before it is turned, clockwise."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return UNIT * (w, h) @ np.array([[cosine, sine], [-sine, cosine]]) + (x + w / 2, y + h / 2)


def turned_rectangle(polygon: np.ndarray, text: str) -> tuple[float, float, float, float, float]:
    """x, y, w, h and the angle of a polygon. Raises ValueError for one that is no rectangle."""
    polygon = np.asarray(polygon, np.float64)
    if len(polygon) == 4:
        w, h = float(np.linalg.norm(polygon[1] - polygon[0])), float(np.linalg.norm(polygon[2] - polygon[1]))
        x, y = (polygon.mean(0) - (w / 2, h / 2)).tolist()
        angle = math.atan2(*(polygon[1] - polygon[0])[::-1])
        if np.abs(corners(x, y, w, h, angle) - polygon).max() <= EXACT:
            return x, y, w, h, angle
    raise ValueError(f"the word '{text}' is no rectangle, and msra_td500 holds turned rectangles alone")
