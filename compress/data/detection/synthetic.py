"""Images of words, drawn: every one of them a pure function of (seed, split, index), so nothing has to be downloaded.

An image is a background, clutter that is not text, and a few words in perspective or along curves, then blur and noise over all of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import cv2
import numpy as np
from pydantic import Field

from compress.data.cache import kept
from compress.data.data_format import DataFormat
from compress.data.detection.augment import Augment
from compress.data.rendering import FONTS, background, clutter, degrade, font, ink_colour, library_versions, rendered, word
from compress.data.split import SPLITS, Annotation, Split
from compress.errors import CompressError, suggestion
from compress.models.contract import Words

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

GENERATOR = 4  # raised whenever the same configuration comes to be drawn differently

HEIGHTS = (22.0, 60.0)  # pixels from the descent to the ascent of the font, for words that count
TINY = (5.0, 8.0)
DO_NOT_CARE = 0.08  # share of the lines that are too small, too faint or too blurred to be asked for
COARSE = 4  # pixels of the image for one of the map of what is taken
TRIES = 25  # places tried for a line before it is given up
TURNED = (0.5, 2.4)  # radians, from the first letter to the last along an arc
CHORD = 0.3  # pixels between a curve and the straight pieces of the polygon around it


class Synthetic(DataFormat):
    """Drawn images, `size` pixels square; `train`, `val` and `test` are how many there are.

    curved: share of the lines of words that are drawn along arcs and waves; their polygons have an even number of corners, the first half
        above the word.
    """

    task: ClassVar[str] = "detection"
    serves_too: ClassVar = ("ocr",)

    format: Literal["synthetic"]
    train: int = Field(default=800, ge=1, le=1_000_000)
    val: int = Field(default=150, ge=1, le=1_000_000)
    test: int = Field(default=150, ge=1, le=1_000_000)
    size: int = Field(default=320, ge=64, le=2048)
    curved: float = Field(default=0.0, ge=0, le=1)

    def default_augment(self) -> Augment:
        # Words are drawn at the size they are tested at, and never mirrored.
        return Augment(scales=(0.75, 1.0, 1.25), cover=0.75, flip=0.0)

    def splits(self) -> tuple[str, ...]:
        return SPLITS

    def open(self, split: str, seed: int, progress: Callable[[int, int], None] | None = None) -> Split:
        """Draw the images of `split` into the cache, unless they are there; `progress` gets (images done, in all)."""
        if split not in SPLITS:
            raise CompressError(f"data: synthetic words have no split '{split}'{suggestion(split, SPLITS)}")
        count = getattr(self, split)
        curved = f" curved {self.curved}" if self.curved else ""
        drawn_as = f"synthetic {GENERATOR} {library_versions()} {split} {count} {self.size} {seed}{curved}"
        key = hashlib.sha256(drawn_as.encode()).hexdigest()

        def drawn(_problems: list[str]) -> Iterator[tuple[Annotation, np.ndarray]]:
            for index in range(count):
                yield draw(seed, split, index, self.size, self.curved)
                if progress:
                    progress(index + 1, count)

        entry = kept(key, drawn)
        return Split(split, entry.annotations, entry.pixels, key)


def draw(seed: int, split: str, index: int, size: int, curved: float = 0.0) -> tuple[Annotation, np.ndarray]:
    """One image, (size, size, 3) uint8 RGB, and its words, of which the share `curved` is on curves."""
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    image = background(size, size, rng)
    clutter(image, rng)
    polygons, ignore, texts = [], [], []
    taken = np.zeros((size // COARSE + 1, size // COARSE + 1), np.uint8)
    for _ in range(rng.integers(3, 9)):
        composed = compose(size, rng)
        # No number is drawn where there are no curves: those images stay what they were.
        put = place_on_curve if curved and rng.random() < curved else place
        line = put(composed, (size, size), taken, rng)
        if line is None:
            continue
        blend(image, line, rng)
        polygons += line.quads
        ignore += [line.style != "plain"] * len(line.quads)
        texts += line.texts
        if sum(not skip for skip in ignore) >= 10:
            break
    return Annotation(f"{split}_{index:05d}", Words(polygons, np.array(ignore, bool), texts)), degrade(image, rng)


@dataclass
class Line:
    """Words side by side, `ink` (h, w) uint8. Once placed, it covers the image from `corner` (x, y) on, and `quads` are in its pixels.

    quads: an outline for each word; of those on curves 2k corners, k of them above the word and k below.
    """

    texts: list[str]
    ink: np.ndarray
    quads: list[np.ndarray]
    style: str  # plain, or why it is do-not-care: tiny, faint, blurred
    corner: tuple[int, int] = (0, 0)


def compose(size: int, rng: np.random.Generator) -> Line:
    """A line of one to three words, upright."""
    style = ("tiny", "faint", "blurred")[rng.integers(3)] if rng.random() < DO_NOT_CARE else "plain"
    low, high = TINY if style == "tiny" else HEIGHTS
    height = low * (min(high, 0.3 * size) / low) ** (rng.random() ** 1.3)
    face = font(FONTS[rng.integers(len(FONTS))])
    texts = [word(rng) for _ in range((1, 1, 1, 1, 2, 2, 3)[rng.integers(7)])]
    return set_in_line(texts, face, height, round(height * rng.uniform(0.45, 0.9)), style)


def set_in_line(texts: list[str], face: FT2Font, height: float, gap: int, style: str = "plain") -> Line:
    """Words side by side, `gap` pixels apart: `ink` is (h, w) uint8, `quads` the (4, 2) rectangle around the ink of each word."""
    glyphs = [rendered(face, height, text) for text in texts]
    above = max(base for _, base in glyphs)
    below = max(len(ink) - base for ink, base in glyphs)
    width = sum(ink.shape[1] for ink, _ in glyphs) + gap * (len(glyphs) - 1)
    canvas = np.zeros((above + below, width), np.uint8)
    quads, x = [], 0
    for ink, base in glyphs:
        h, w = ink.shape
        y = above - base
        canvas[y : y + h, x : x + w] = ink
        # A pixel is a square around its centre: ink in the pixels x .. x+w-1 reaches from x - 0.5 to x + w - 0.5.
        quads.append(np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], np.float64) - 0.5)
        x += w + gap
    return Line(texts, canvas, quads, style)


def place(line: Line, size: tuple[int, int], taken: np.ndarray, rng: np.random.Generator) -> Line | None:
    """Put the line somewhere free, turned and in mild perspective, and mark the place in `taken`; None if there is none.

    size: (width, height) of the image.
    """
    h, w = line.ink.shape
    corners = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float64) - 0.5
    angle = math.radians(float(np.clip(rng.normal(0, 8), -30, 30)) if rng.random() < 0.9 else rng.uniform(-45, 45))
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    shape = corners @ rotation + rng.uniform(-0.12, 0.12, (4, 2)) * min(h, w)
    shape -= shape.min(axis=0)
    at = free_spot(shape, size, taken, rng)
    if at is None:
        return None
    quad = shape + at
    x, y = np.floor(quad.min(axis=0)).astype(int)
    right, bottom = np.ceil(quad.max(axis=0)).astype(int) + 1
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), (quad - (x, y)).astype(np.float32))
    ink = cv2.warpPerspective(line.ink, matrix, (int(right - x), int(bottom - y)), flags=cv2.INTER_LINEAR)
    quads = [cv2.perspectiveTransform(word[None], matrix)[0] + (x, y) for word in line.quads]
    return Line(line.texts, ink, [word.astype(np.float32) for word in quads], line.style, (int(x), int(y)))


def free_spot(shape: np.ndarray, size: tuple[int, int], taken: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Where (x, y) a convex shape, its left top at 0, lies on nothing that is taken, and marks it in `taken`; None if that is nowhere."""
    room = np.array(size) - 4 - shape.max(axis=0)
    if (room < 0).any():
        return None
    for at in 2 + room * rng.random((TRIES, 2)):
        coarse = ((shape + at) / COARSE).round().astype(np.int32)
        mark = cv2.fillConvexPoly(np.zeros_like(taken), coarse, 1)
        if cv2.countNonZero(mark & taken):
            continue
        # What is taken is wider than the words, so that two lines never touch.
        taken |= mark
        cv2.polylines(taken, [coarse], True, 1, 3)
        return at
    return None


class Bend(NamedTuple):
    """A map of the plane that bends the x axis about 0: `onto` takes (n, 2) points there, `back` returns them.

    curvature: at most that of any line of the text, 1 / pixels, after lengthening.
    """

    onto: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]
    curvature: float


def arc(radius: float, height: float) -> Bend:
    """Onto a circle of that radius, in pixels; its centre is below the text, or above it where the radius is negative."""
    side = math.copysign(1.0, radius)

    def onto(points: np.ndarray) -> np.ndarray:
        x, y = points.T
        return np.stack([(radius - y) * np.sin(x / radius), radius - (radius - y) * np.cos(x / radius)], 1)

    def back(points: np.ndarray) -> np.ndarray:
        x, y = points.T
        return np.stack([radius * np.arctan2(side * x, side * (radius - y)), radius - side * np.hypot(x, radius - y)], 1)

    return Bend(onto, back, (abs(radius) + height / 2) / radius**2)


def wave(depth: float, length: float, phase: float) -> Bend:
    """Up and down by `depth` pixels, once in `length` pixels."""

    def lift(points: np.ndarray) -> np.ndarray:
        return np.stack([np.zeros(len(points)), depth * np.sin(2 * math.pi * points[:, 0] / length + phase)], 1)

    return Bend(lambda points: points + lift(points), lambda points: points - lift(points), abs(depth) * (2 * math.pi / length) ** 2)


def random_bend(width: int, height: int, rng: np.random.Generator) -> Bend:
    """An arc or a wave that a line of so many pixels can follow and stay readable."""
    if rng.random() < 0.6:
        radius = max(width / rng.uniform(*TURNED), 1.5 * height)
        return arc(radius if rng.random() < 0.7 else -radius, height)
    length = max(width * rng.uniform(0.8, 1.6), 2.5 * height)
    return wave(min(rng.uniform(0.3, 0.7) * height, 0.13 * length), length, rng.uniform(0, 2 * math.pi))


def rim(low: np.ndarray, high: np.ndarray, curvature: float) -> np.ndarray:
    """(2k, 2) outline of an upright rectangle, with corners as near to each other as a curve needs: clockwise from the left top."""
    pieces = max(2, math.ceil((high[0] - low[0]) * math.sqrt(curvature / (8 * CHORD))))
    x = np.linspace(low[0], high[0], pieces + 1)
    return np.stack([np.concatenate([x, x[::-1]]), np.repeat([low[1], high[1]], pieces + 1)], 1)


def place_on_curve(line: Line, size: tuple[int, int], taken: np.ndarray, rng: np.random.Generator) -> Line | None:
    """Bend the line, turn it, and put it somewhere free; as :func:`place` otherwise."""
    h, w = line.ink.shape
    bend = random_bend(w, h, rng)
    middle = np.array([w - 1, h - 1]) / 2
    angle = math.radians(float(np.clip(rng.normal(0, 10), -40, 40)))
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    outline = bend.onto(rim(np.array([-0.5, -0.5]) - middle, np.array([w, h]) - 0.5 - middle, bend.curvature)) @ rotation
    start = outline.min(axis=0)
    at = free_spot(cv2.convexHull((outline - start).astype(np.float32))[:, 0].astype(np.float64), size, taken, rng)
    if at is None:
        return None
    shift = at - start
    x, y = np.floor(at).astype(int)
    right, bottom = np.ceil(outline.max(axis=0) + shift).astype(int) + 1
    pixels = np.stack(np.meshgrid(np.arange(x, right), np.arange(y, bottom)), 2).reshape(-1, 2)
    source = (bend.back((pixels - shift) @ rotation.T) + middle).astype(np.float32).reshape(bottom - y, right - x, 2)
    ink = cv2.remap(line.ink, source, None, cv2.INTER_LINEAR)  # type: ignore[call-overload]  # one map of both coordinates
    rims = [rim(word.min(axis=0) - middle, word.max(axis=0) - middle, bend.curvature) for word in line.quads]
    outlines = [(bend.onto(points) @ rotation + shift).astype(np.float32) for points in rims]
    return Line(line.texts, ink, outlines, line.style, (int(x), int(y)))


def blend(image: np.ndarray, line: Line, rng: np.random.Generator) -> None:
    """Paint the line, in a colour that stands out from what is behind it unless it is a faint one."""
    (x, y), (h, w) = line.corner, line.ink.shape
    behind = image[y : y + h, x : x + w]
    ground = np.array(cv2.mean(behind)[:3])
    if line.style == "plain" and rng.random() < 0.25:  # a sign: a plate under the words
        ground = rng.integers(0, 256, 3).astype(float)
        outline = cv2.convexHull(np.concatenate(line.quads))
        centre = outline.mean(axis=0)
        grown = centre + (outline - centre) * 1.08 + np.sign(outline - centre) * 3
        cv2.fillConvexPoly(image, grown.round().astype(np.int32), ground.tolist(), cv2.LINE_AA)
    colour = ink_colour(ground, rng.uniform(6, 14) if line.style == "faint" else rng.uniform(100, 210), rng)
    ink: np.ndarray = line.ink.astype(np.float32) / 255
    if line.style == "blurred":
        spread = np.zeros(image.shape[:2], np.float32)
        spread[y : y + h, x : x + w] = ink
        first = line.quads[0]
        letter = float(min(np.linalg.norm(first[-1] - first[0]), np.linalg.norm(first[len(first) // 2 - 1] - first[0])))
        ink, behind = cv2.GaussianBlur(spread, (0, 0), max(1.5, 0.14 * letter)), image
    behind[:] = (behind + ink[..., None] * (colour - behind) + 0.5).astype(np.uint8)
