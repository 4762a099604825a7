"""Synthetic lines of text: every image is a pure function of (seed, split, index) and the fonts, so nothing has to be downloaded.

An image is a background, clutter that is not text, a line of one to four words in perspective, then uneven light, few pixels, blur,
noise and JPEG over all of it. It is cut as tightly around the text as the ground truths of photographs are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field, field_validator

from compress.data.cache import kept
from compress.data.data_format import DataFormat
from compress.data.files import settle
from compress.data.lines.augment_text import AugmentText
from compress.data.lines.fonts import NEEDED, characters, default_fonts, digest, fonts_in
from compress.data.lines.texts import LONGEST, PRINTABLE, known_word, line_text, vocabulary_of
from compress.data.rendering import WritingError, background, clutter, degrade, face, ink_colour, library_versions, rendered
from compress.data.split import SPLITS, Annotation, Split
from compress.errors import CompressError, suggestion
from compress.models.alphabet import Written, alphabet_of
from compress.models.contract import Line

GENERATOR = 3  # raised whenever the same configuration comes to be drawn differently
WIDEST = 32  # heights of the image


class SyntheticLines(DataFormat):
    """Synthetic lines; `train`, `val` and `test` are how many there are.

    height: of the images, in pixels; their widths vary with the text. fonts: a folder; the fonts below it are used beside matplotlib's.
    vocabulary: a text file with a word a line; its words are drawn instead of made-up ones, beside numbers and codes.
    characters: those that occur, as the `alphabet` of a model names them. words: the most in a line, and longest: in characters.
    """

    task: ClassVar[str] = "recognition"

    format: Literal["synthetic_lines"]
    train: int = Field(default=4000, ge=1, le=10_000_000)
    val: int = Field(default=500, ge=1, le=1_000_000)
    test: int = Field(default=500, ge=1, le=1_000_000)
    height: int = Field(default=48, ge=16, le=256)
    fonts: Path | None = None
    vocabulary: Path | None = None
    characters: Written = "en"
    words: int = Field(default=4, ge=1, le=4)
    longest: int = Field(default=LONGEST, ge=1, le=LONGEST)

    @field_validator("characters")
    @classmethod
    def check_characters(cls, written: Written) -> Written:
        """Some that fonts are sure to have."""
        if not set(alphabet_of(written).characters) <= {*PRINTABLE, " "} or not set(alphabet_of(written).characters) & NEEDED:
            raise ValueError("characters of synthetic lines are those of ASCII, letters or digits among them")
        return written

    def default_augment(self) -> AugmentText:
        """How its images are augmented unless a recipe says otherwise."""
        return AugmentText()

    def splits(self) -> tuple[str, ...]:
        """All three."""
        return SPLITS

    def open(self, split: str, seed: int, progress: Callable[[int, int], None] | None = None) -> Split:
        """Draw the images of `split` into the cache, unless they are there; `progress` gets (images done, in all).

        Raises CompressError for a split that is not there, and for fonts and a vocabulary that cannot be used.
        """
        if split not in SPLITS:
            raise CompressError(f"data: synthetic lines have no split '{split}'{suggestion(split, SPLITS)}")
        count = getattr(self, split)
        own, problems = fonts_in(self.fonts) if self.fonts else ([], [])
        fonts = default_fonts() + own
        vocabulary = vocabulary_of(self.vocabulary) if self.vocabulary else ()
        texts = Texts(frozenset(alphabet_of(self.characters).characters), self.words, self.longest, vocabulary)
        drawn_as = f"synthetic_lines {GENERATOR} {library_versions()} {split} {count} {self.height} {seed} {digest(own)} {texts.told()}"
        key = hashlib.sha256(drawn_as.encode()).hexdigest()

        def drawn(_problems: list[str]) -> Iterator[tuple[Annotation, np.ndarray]]:
            for index in range(count):
                yield draw(seed, split, index, self.height, fonts, texts)
                if progress:
                    progress(index + 1, count)

        entry = kept(key, drawn)
        settle(problems, "skip")
        return Split(split, entry.annotations, entry.pixels, key, tuple(problems))


@dataclass(frozen=True)
class Texts:
    """What lines may say: characters that occur, the most words and characters of one, and the words (made-up where none are given)."""

    characters: frozenset[str] = frozenset(f"{PRINTABLE} ")
    words: int = 4
    longest: int = LONGEST
    vocabulary: tuple[str, ...] = ()

    def told(self) -> str:
        """All of it, for a key."""
        known = hashlib.sha256("\n".join(self.vocabulary).encode()).hexdigest() if self.vocabulary else ""
        return f"{''.join(sorted(self.characters))} {self.words} {self.longest} {known}".rstrip()

    def text(self, rng: np.random.Generator) -> str:
        """What a line says, before characters that may not occur are left out."""
        return line_text(rng, self.words, partial(known_word, words=self.vocabulary)) if self.vocabulary else line_text(rng, self.words)


def draw(seed: int, split: str, index: int, height: int, fonts: Sequence[Path], texts: Texts = Texts()) -> tuple[Annotation, np.ndarray]:
    """One image, (height, width, 3) uint8 RGB, and its text."""
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    font = fonts[int(rng.integers(len(fonts)))]
    text = spelled(texts.text(rng), characters(font), texts, rng)
    size = height * rng.uniform(0.7, 1.3)
    ink = inked(font, size, text)
    mask = placed(ink, size, height, rng)
    image = background(mask.shape[0], mask.shape[1], rng)
    if rng.random() < 0.4:
        clutter(image, rng)
    return Annotation(f"{split}_{index:06d}", Line(text)), worn(painted(image, mask, rng), rng)


def inked(font: Path, size: float, text: str) -> np.ndarray:
    """(h, w) uint8 ink of a text, in another font where this one cannot write it at that size."""
    try:
        return rendered(face(font), size, text)[0]
    except WritingError:
        return rendered(face(default_fonts()[0]), size, text)[0]


def spelled(text: str, drawn: frozenset[str], texts: Texts, rng: np.random.Generator) -> str:
    """The text in characters that the font draws and that may occur: others are left out, or exchanged for those of the other case.

    One word where spaces may not occur. Where nothing is left, one to six characters by chance.
    """
    known = drawn & texts.characters
    other = {character.swapcase(): character for character in known}
    words = ["".join(one if one in known else other.get(one, "") for one in word) for word in text.split()]
    words = [word for word in words if word][: None if " " in texts.characters else 1]
    kept = " ".join(words)[: texts.longest].strip()
    return kept or "".join(rng.choice(sorted(known), rng.integers(1, min(6, texts.longest) + 1)))


def placed(ink: np.ndarray, size: float, height: int, rng: np.random.Generator) -> np.ndarray:
    """The ink, (h, w) uint8, stretched and in mild perspective, with a margin, in an image that is `height` pixels high.

    size: of the font, in pixels; a line of dashes is not enlarged until it fills the image.
    """
    h, w = ink.shape
    least = max(0.0, 0.45 * size - h) / 2
    top, bottom, left, right = rng.uniform(0.06, 0.3, 4) * max(h, 0.45 * size) + np.array([least, least, 0, 0])
    tall, wide = h + top + bottom, w + left + right
    width = int(np.clip(round(height * wide / tall * rng.uniform(0.8, 1.25)), height // 4, WIDEST * height))
    corners = np.array([(-left, -top), (w + right, -top), (w + right, h + bottom), (-left, h + bottom)]) - 0.5
    corners += rng.uniform(-1, 1, (4, 2)) * tall * np.array([0.05, 0.08])
    target = np.array([(0, 0), (width, 0), (width, height), (0, height)]) - 0.5
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), target.astype(np.float32))
    return cv2.warpPerspective(ink, matrix, (width, height), flags=cv2.INTER_LINEAR)


def painted(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image with the ink of `mask` in a colour that stands out; perhaps uneven, over a shadow or in an outline."""
    ground = np.array(cv2.mean(image)[:3])
    colour = ink_colour(ground, rng.uniform(60, 210), rng)
    effect = rng.random()
    if effect < 0.15:
        shift = rng.uniform(-0.06, 0.06, 2) * len(mask)
        shadow = cv2.warpAffine(mask, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), mask.shape[::-1])
        image = blended(image, shadow, ink_colour(colour, rng.uniform(30, 120), rng))
    elif effect < 0.25:
        image = blended(image, cv2.dilate(mask, np.ones((3, 3), np.uint8)), ink_colour(colour, rng.uniform(60, 120), rng))
    if rng.random() < 0.3:
        tone = rng.uniform(-30, 30, (2, 4, 3)).astype(np.float32)
        return blended(image, mask, colour + cv2.resize(tone, mask.shape[::-1], interpolation=cv2.INTER_LINEAR))
    return blended(image, mask, colour)


def blended(image: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """`colour`, (3,) or (H, W, 3) in 0..255, laid over the image as thickly as `mask`, (H, W) uint8, says."""
    share = mask * np.float32(1 / 255)
    layer = np.empty_like(image)
    layer[:] = colour.clip(0, 255)
    return cv2.blendLinear(image, layer, 1 - share, share)


def worn(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera leaves of it: uneven light, few pixels, blur, noise and block artefacts, each on some of the images."""
    height, width = image.shape[:2]
    if rng.random() < 0.3:
        light = cv2.resize(rng.uniform(0.45, 1.15, (2, 2)).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        image = (image * light[..., None]).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        scale = rng.uniform(0.3, 0.9)
        few = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, few, interpolation=cv2.INTER_AREA)
        return cv2.resize(degrade(small, rng), (width, height), interpolation=cv2.INTER_LINEAR)
    return degrade(image, rng)
