"""What synthetic images are made of: backgrounds, things that are not text, words, their glyphs, and what a camera does to them."""

from __future__ import annotations

import math
import warnings
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmss10", "cmtt10", "cmb10"),
)
LETTERS = ("aeiouaeiouaeiouaeioueyaeio", "bcdfghjklmnpqrstvwxzbcdrst")  # equally many of both
LENGTHS = (2, 3, 3, 4, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10)


def library_versions() -> str:
    """Those that draw: another version may set a pixel otherwise."""
    import matplotlib

    return f"opencv {cv2.__version__} matplotlib {matplotlib.__version__}"


def background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width, 3) uint8: one colour, a gradient or clouds, perhaps with stripes."""
    base = rng.integers(20, 236, 3)
    spread = rng.uniform(0, 55)
    cells = int(rng.choice([1, 2, 2, 3, 5, 9, 17]))
    colours = base + spread * (rng.random((cells, cells, 1)) - 0.5) + 0.4 * spread * (rng.random((cells, cells, 3)) - 0.5)
    image = cv2.resize(colours.clip(0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.25:
        period, angle, depth = rng.uniform(6, 50), rng.uniform(0, math.pi), rng.uniform(4, 22)
        across, down = (np.arange(side, dtype=np.float32) * (2 * math.pi / period) for side in (width, height))
        wave = np.sin(across[None] * math.cos(angle) + down[:, None] * math.sin(angle))
        tone = cv2.cvtColor((depth * (1 + wave)).astype(np.uint8), cv2.COLOR_GRAY2RGB)
        image = cv2.subtract(image, tone)
    return np.ascontiguousarray(image)


def clutter(image: np.ndarray, rng: np.random.Generator) -> None:
    """Things that are not text: lines, boxes, ellipses, stripes, grids, blobs and strokes as thin as a letter's."""
    shapes = (straight, box, oval, stripes, grid, blob, scribble)
    for _ in range(rng.integers(0, 5)):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        shapes[rng.integers(len(shapes))](image, rng.uniform(0, image.shape[1::-1]), colour, rng)


def straight(image: np.ndarray, at: np.ndarray, colour: tuple[int, ...], rng: np.random.Generator) -> None:
    cv2.line(image, point(at), point(rng.uniform(0, image.shape[1::-1])), colour, int(rng.integers(1, 5)), cv2.LINE_AA)


def box(image: np.ndarray, at: np.ndarray, colour: tuple[int, ...], rng: np.random.Generator) -> None:
    sides = rng.uniform(8, max(8, 0.45 * len(image)), 2)
    corners = cv2.boxPoints((at.tolist(), sides.tolist(), rng.normal(0, 12))).round().astype(np.int32)
    if rng.random() < 0.6:
        cv2.fillConvexPoly(image, corners, colour, cv2.LINE_AA)
    else:
        cv2.polylines(image, [corners], True, colour, int(rng.integers(1, 4)), cv2.LINE_AA)


def oval(image: np.ndarray, at: np.ndarray, colour: tuple[int, ...], rng: np.random.Generator) -> None:
    axes = point(rng.uniform(4, max(4, 0.2 * len(image)), 2))
    cv2.ellipse(image, point(at), axes, rng.uniform(0, 180), 0, 360, colour, int(rng.choice([-1, 1, 2, 3])), cv2.LINE_AA)


def stripes(image: np.ndarray, at: np.ndarray, colour: tuple[int, ...], rng: np.random.Generator) -> None:
    """Parallel bars: the rhythm of a word without its letters."""
    angle, step, length = rng.uniform(0, math.pi), rng.uniform(4, 14), rng.uniform(8, 60)
    along, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    thickness = int(rng.integers(1, max(2, int(step / 2))))
    for count in range(rng.integers(3, 12)):
        start = at + count * step * across
        cv2.line(image, point(start), point(start + length * along), colour, thickness, cv2.LINE_AA)


def grid(image: np.ndarray, at: np.ndarray, colour: tuple[int, ...], rng: np.random.Generator) -> None:
    step, cells, thickness = rng.uniform(6, 24), rng.integers(2, 7, 2), int(rng.integers(1, 3))
    end = at + step * cells
    for column in range(cells[0] + 1):
        x = at[0] + step * column
        cv2.line(image, point((x, at[1])), point((x, end[1])), colour, thickness)
    for row in range(cells[1] + 1):
        y = at[1] + step * row
        cv2.line(image, point((at[0], y)), point((end[0], y)), colour, thickness)


def blob(image: np.ndarray, at: np.ndarray, colour: tuple[int, ...], rng: np.random.Generator) -> None:
    angles = np.linspace(0, 2 * math.pi, 9)[:-1]
    radii = rng.uniform(0.4, 1, 8) * rng.uniform(5, max(5, 0.15 * len(image)))
    outline = at + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cv2.fillPoly(image, [outline.round().astype(np.int32)], colour, cv2.LINE_AA)


def scribble(image: np.ndarray, at: np.ndarray, colour: tuple[int, ...], rng: np.random.Generator) -> None:
    """A few bent strokes apart from each other, as of leaves or cracks."""
    reach, thickness = rng.uniform(6, 30), int(rng.integers(1, 4))
    for _ in range(rng.integers(1, 5)):
        steps = rng.normal(0, reach / 2, (rng.integers(2, 5), 2))
        curve = at + rng.normal(0, 2 * reach, 2) + np.cumsum(steps, axis=0)
        cv2.polylines(image, [curve.round().astype(np.int32)], False, colour, thickness, cv2.LINE_AA)


def point(xy: np.ndarray | tuple[float, float]) -> tuple[int, int]:
    return round(float(xy[0])), round(float(xy[1]))


def word(rng: np.random.Generator) -> str:
    """Letters that alternate like a word's, or a number."""
    length = LENGTHS[rng.integers(len(LENGTHS))]
    kind = rng.random()
    if kind < 0.15:
        return "".join(map(str, rng.integers(0, 10, min(length, 6))))
    turn = int(rng.integers(2))
    picks = rng.random(length)
    letters = "".join(LETTERS[(turn + place) % 2][int(pick * len(LETTERS[0]))] for place, pick in enumerate(picks))
    if kind < 0.45:
        return letters.upper()
    return letters.capitalize() if kind < 0.7 else letters


def font_file(name: str) -> Path:
    """Where matplotlib keeps the font of that name."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


@cache
def font(name: str) -> FT2Font:
    """One of matplotlib's fonts."""
    return face(font_file(name))


@lru_cache(maxsize=128)  # each keeps its file open
def face(path: Path) -> FT2Font:
    """The font in a file. Raises RuntimeError for one that FreeType does not read."""
    from matplotlib.ft2font import FT2Font

    return FT2Font(str(path))


class WritingError(ValueError):
    """A text of which a font lacks a glyph, if only the one that it joins two characters into, or that leaves no ink at a height."""


def rendered(face: FT2Font, height: float, text: str) -> tuple[np.ndarray, int]:
    """(h, w) uint8 ink cut tightly, and how many of its rows are above the baseline. Raises WritingError."""
    face.set_size(height, 72)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # matplotlib's word for a missing glyph
        try:
            face.set_text(text, 0.0)
        except UserWarning as warning:
            raise WritingError(str(warning)) from None
    face.draw_glyphs_to_bitmap(antialiased=True)
    ink = np.asarray(face.get_image())
    descent = round(face.get_descent() / 64)
    dark = ink >= 64
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    if not len(rows):
        raise WritingError(f"{text} leaves no ink at a height of {height:.1f} pixels")
    top, bottom = rows[0], rows[-1] + 1
    return ink[top:bottom, columns[0] : columns[-1] + 1], int(len(ink) - descent - top)


def ink_colour(ground: np.ndarray, contrast: float, rng: np.random.Generator) -> np.ndarray:
    """(3,) RGB whose mean differs by `contrast` from the ground's, or by as much as the range 0..255 allows."""
    mean = ground.mean()
    room_up, room_down = 255 - mean, mean
    fits_up, fits_down = room_up >= contrast, room_down >= contrast
    up = rng.random() < 0.5 if fits_up and fits_down else fits_up or (not fits_down and room_up > room_down)
    target = float(np.clip(mean + contrast if up else mean - contrast, 0, 255))
    tint = rng.uniform(-1, 1, 3)
    tint -= tint.mean()
    return (target + tint * min(60, 2 * contrast) * min(target, 255 - target) / 127.5).clip(0, 255).astype(np.float32)


def degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, noise and block artefacts, each on some of the images."""
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9))
    if rng.random() < 0.6:
        noise = rng.integers(0, 256, image.shape, np.uint8)
        strength = rng.uniform(0.02, 0.12)
        image = cv2.addWeighted(image, 1, noise, strength, -127.5 * strength)
    if rng.random() < 0.25:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 85))])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return image
