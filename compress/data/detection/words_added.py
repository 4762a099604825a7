"""Data format `words_added`: photographs, and copies of them with synthetic words drawn where there are none (after SynthText, Gupta et
al. 2016). More words in more fonts for models that fit their training images already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from compress.data.cache import kept
from compress.data.data_format import DataFormat
from compress.data.detection.augment import Augment
from compress.data.detection.cocotext import CocoText
from compress.data.detection.ctw1500 import Ctw1500
from compress.data.detection.icdar2015 import Icdar2015
from compress.data.detection.icdar2017 import Icdar2017
from compress.data.detection.msra_td500 import MsraTd500
from compress.data.detection.paddleocr import PaddleOcr
from compress.data.detection.synthetic import COARSE, Line, place, set_in_line
from compress.data.detection.totaltext import TotalText
from compress.data.files import settle
from compress.data.lines.fonts import characters, default_fonts, digest, fonts_in
from compress.data.lines.texts import Word, known_word, line_text, vocabulary_of
from compress.data.rendering import WritingError, face, ink_colour, library_versions, word
from compress.data.split import Annotation, Split
from compress.models.contract import Words

GENERATOR = 1  # raised whenever the same photographs come to be drawn upon differently

LINES = (4, 14)  # drawn on a photograph: the least, and one more than the most
WORDS = 3  # the most in a line
HEIGHTS = (0.018, 0.15)  # of the fonts, as shares of the photograph's short side
LARGE = 0.3  # share of the lines that may be higher than half of that
MARGIN = 8  # pixels around a line that its sign, its shadow and its blur reach
SIGNS, SHADOWS, OUTLINES = 0.3, 0.2, 0.25  # shares of the lines
CONTRAST = (30.0, 170.0)  # grey levels between the ink and what is behind it
STANDS_OUT = 1.5  # standard deviations of what is behind it, which the contrast is at least
LEAST = 8.0  # pixels; lower words are do-not-care
LIGHT = 6.0  # pixels of blur that leave of a photograph how it is lit
GRAIN = 3.0  # largest standard deviation of the noise, in grey levels
QUALITY = (70, 95)  # of JPEG

Photographs = Icdar2015 | Icdar2017 | TotalText | Ctw1500 | MsraTd500 | PaddleOcr | CocoText


class WordsAdded(DataFormat):
    """The photographs of another data set; to train on, also `copies` of each with further words, which no other word touches.

    of: a `data` section of a format of photographs. Its validation and test images stay as they are.
    fonts: a folder; the fonts below it are used beside matplotlib's. vocabulary: a text file with a word a line; its words are drawn
    instead of made-up ones, beside numbers and codes.
    """

    task: ClassVar[str] = "detection"

    format: Literal["words_added"]
    of: Annotated[Photographs, Field(discriminator="format")]
    copies: int = Field(default=1, ge=1, le=1000)
    fonts: Path | None = None
    vocabulary: Path | None = None

    def default_augment(self) -> Augment:
        """That of the photographs."""
        return self.of.default_augment()

    def splits(self) -> tuple[str, ...]:
        """Those of the photographs."""
        return self.of.splits()

    def open(self, split: str, seed: int, progress: Callable[[int, int], None] | None = None) -> Split:
        """The photographs of `split`; of `train`, the copies behind them, which are drawn into the cache unless they are there.

        Raises what opening the photographs does, and CompressError for fonts and a vocabulary that cannot be used.
        """
        photos = self.of.open(split, seed, progress)
        if split != "train":
            return photos
        own, problems = fonts_in(self.fonts) if self.fonts else ([], [])
        vocabulary = vocabulary_of(self.vocabulary) if self.vocabulary else ()
        writing = Writing(tuple(default_fonts() + own), partial(known_word, words=vocabulary) if vocabulary else word)
        told = hashlib.sha256("\n".join(vocabulary).encode()).hexdigest()
        drawn_as = f"words_added {GENERATOR} {library_versions()} {photos.digest} {self.copies} {seed} {digest(own)} {told}"
        key = hashlib.sha256(drawn_as.encode()).hexdigest()

        def drawn(_problems: list[str]) -> Iterator[tuple[Annotation, np.ndarray]]:
            for copy in range(self.copies):
                for index, annotation in enumerate(photos.annotations):
                    rng = np.random.default_rng((seed, GENERATOR, copy, index))
                    image, truth = add_words(photos.image(index), annotation.truth, writing, rng)
                    yield Annotation(f"{annotation.name}_words{copy + 1}", truth), image
                    if progress:
                        progress(copy * len(photos) + index + 1, self.copies * len(photos))

        entry = kept(key, drawn)
        settle(problems, "skip")
        images = Behind(photos.image, entry.pixels, len(photos))
        return Split(split, [*photos.annotations, *entry.annotations], images, key, (*photos.problems, *problems))


@dataclass(frozen=True)
class Behind:
    """`images(index)`: those of `first`, which are `count`, then those of `then`."""

    first: Callable[[int], np.ndarray]
    then: Callable[[int], np.ndarray]
    count: int

    def __call__(self, index: int) -> np.ndarray:
        return self.first(index) if index < self.count else self.then(index - self.count)


@dataclass(frozen=True)
class Writing:
    """What words are written in: the files of fonts, and what gives a word."""

    fonts: Sequence[Path]
    word: Word

    def line(self, height: float, rng: np.random.Generator) -> Line | None:
        """A line of one to three words, upright; None where the font cannot write it."""
        font = self.fonts[int(rng.integers(len(self.fonts)))]
        known = characters(font)
        texts = ["".join(sign for sign in text if sign in known) for text in line_text(rng, WORDS, self.word).split()]
        texts = [text for text in texts if text]
        gap = round(height * rng.uniform(0.3, 0.7))
        try:
            return set_in_line(texts, face(font), height, gap) if texts else None
        except WritingError:
            return None


def add_words(photo: np.ndarray, truth: Words, writing: Writing, rng: np.random.Generator) -> tuple[np.ndarray, Words]:
    """A copy of an (H, W, 3) uint8 photograph with further words, as a camera sees it, and all of its words."""
    height, width = photo.shape[:2]
    image: np.ndarray = photo.astype(np.float32)
    light: np.ndarray = cv2.GaussianBlur(image.mean(axis=2), (0, 0), LIGHT)
    taken = covered(truth.polygons, height, width)
    added: list[Line] = []
    for _ in range(rng.integers(*LINES)):
        line = writing.line(font_height(min(height, width), rng), rng)
        placed = place(line, (width, height), taken, rng) if line else None
        if placed:
            paint(image, light, with_margin(placed, height, width), rng)
            added.append(placed)
    quads = [quad.clip(0, np.array((width, height), np.float32) - 1) for line in added for quad in line.quads]
    texts = [text for line in added for text in line.texts] if truth.texts or not truth.polygons else []
    ignore = np.concatenate([truth.ignore, np.array([letter_height(quad) < LEAST for quad in quads], bool)])
    return shot(image, rng), Words([*truth.polygons, *quads], ignore, [*truth.texts, *texts])


def font_height(short: int, rng: np.random.Generator) -> float:
    """Pixels, any ratio as likely as any other."""
    low, high = HEIGHTS
    high *= 1 if rng.random() < LARGE else 0.5
    return short * low * (high / low) ** rng.random()


def letter_height(quad: np.ndarray) -> float:
    """Pixels from the first corner to the last."""
    return float(np.linalg.norm(quad[3] - quad[0]))


def covered(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """A map, a pixel for `COARSE` of the image, of where words are and what is close to them."""
    taken = np.zeros((height // COARSE + 1, width // COARSE + 1), np.uint8)
    for polygon in polygons:
        outline = (polygon / COARSE).round().astype(np.int32)
        cv2.fillPoly(taken, [outline], 1)
        cv2.polylines(taken, [outline], True, 1, 3)
    return taken


def with_margin(line: Line, height: int, width: int) -> Line:
    """A placed line whose ink has `MARGIN` pixels around it, fewer at the borders of the image."""
    (x, y), (h, w) = line.corner, line.ink.shape
    left, top, right, bottom = (max(0, min(MARGIN, room)) for room in (x, y, width - x - w, height - y - h))
    return replace(line, ink=cv2.copyMakeBorder(line.ink, top, bottom, left, right, cv2.BORDER_CONSTANT), corner=(x - left, y - top))


def paint(image: np.ndarray, light: np.ndarray, line: Line, rng: np.random.Generator) -> None:
    """Lay the ink of a placed line, at times on a sign, with a shadow or an outline, over a float32 image, lit as its place is."""
    (x, y), (h, w) = line.corner, line.ink.shape
    behind, shade = image[y : y + h, x : x + w], light[y : y + h, x : x + w]
    shade = (shade / max(1.0, float(shade.mean())))[..., None]
    ground, spread = behind.mean(axis=(0, 1)), float(behind.mean(axis=2).std())
    ink: np.ndarray = line.ink.astype(np.float32) / 255
    letter = min(map(letter_height, line.quads))
    if rng.random() < SIGNS:
        ground, spread = rng.integers(0, 256, 3) * rng.uniform(0.4, 1), 0.0
        lay(behind, sign(line), ground * shade)
    colour = ink_colour(ground, max(rng.uniform(*CONTRAST), STANDS_OUT * spread), rng)
    blur, opacity = rng.uniform(0.2, 0.9) + rng.uniform(0, 0.045) * letter, rng.uniform(0.75, 1)
    if rng.random() < SHADOWS:
        shift = max(1, round(0.06 * letter))
        moved = cv2.warpAffine(ink, np.array([[1.0, 0, shift], [0, 1, shift]]), (w, h))
        lay(behind, 0.5 * cv2.GaussianBlur(moved, (0, 0), max(0.5, 0.05 * letter)), np.zeros(3))
    if rng.random() < OUTLINES:
        side = 1 + max(1, round(0.08 * letter))
        wider = cv2.dilate(ink, np.ones((side, side), np.uint8))
        lay(behind, opacity * cv2.GaussianBlur(wider, (0, 0), blur), rng.integers(0, 256, 3) * shade)
    lay(behind, opacity * cv2.GaussianBlur(ink, (0, 0), blur), colour * shade)


def sign(line: Line) -> np.ndarray:
    """(h, w) float32 in 0..1: the plate under the words of a line that has a margin."""
    outline = cv2.convexHull(np.concatenate(line.quads) - np.array(line.corner, np.float32))[:, 0]
    centre = outline.mean(axis=0)
    grown = centre + 1.05 * (outline - centre) + 3 * np.sign(outline - centre)
    plate = cv2.fillConvexPoly(np.zeros(line.ink.shape, np.float32), grown.round().astype(np.int32), 1.0)
    return cv2.GaussianBlur(plate, (0, 0), 0.7)


def lay(behind: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> None:
    """Cover (h, w, 3) pixels, in place, by a colour, or one for each of them, as far as `cover` (h, w), in 0..1, says."""
    behind += cover[..., None] * (np.clip(colour, 0, 255) - behind)


def shot(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A float32 image as uint8, with the noise of a camera and the losses of JPEG."""
    grain = rng.normal(0, rng.uniform(0, GRAIN), (*image.shape[:2], 1))
    pixels = np.clip(image + grain + 0.5, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*QUALITY))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
