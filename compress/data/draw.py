"""`compress data draw`: a folder of synthetic photographs, or lines, with their ground truth: to try the workbench on while one's own are
labelled, or to train on beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from compress.data.convert import appear, folder_format
from compress.data.detection.folder import ImageFolder
from compress.data.detection.synthetic import draw
from compress.data.files import Files
from compress.data.formats import open_split
from compress.data.lines.convert import WRITERS
from compress.data.lines.synthetic import SyntheticLines
from compress.errors import CompressError
from compress.outputs import check_new

DARKEST = (0.35, 1.0)  # range of the light in the darkest place of an image, as a share of that in the brightest
SMALLEST = 64  # pixels a side of a photograph
QUALITY = 85  # of JPEG


def draw_folder(out: Path, format_name: str, *, images: int, test: int, size: int, seed: int) -> list[str]:
    """Write `images` photographs for training and `test` others, `size` pixels square, into the new folder `out`; a line for each part.

    They are a pure function of the seed and of the versions of the libraries that draw. Raises CompressError for a folder that holds
    something already, for a format that is not of scenes in a folder or holds rectangles alone, and for photographs of less than 64 pixels.
    """
    if size < SMALLEST:
        raise CompressError(f"--size {size}: photographs have {SMALLEST} pixels or more; give as many.")
    check_new(out)
    writing = folder_format(format_name, out)

    def write(partial: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            parts = {part: drawn(Path(folder), writing, part, count, size, seed) for part, count in counts.items()}
            writing.model_copy(update={"root": partial}).save(parts)

    counts = {part: count for part, count in (("train", images), ("test", test)) if count}
    appear(out, write)
    return [f"{part}: {count} images" for part, count in counts.items()]


def lines_of_ones_own(*, train: int, test: int, height: int, words: int, fonts: Path | None, vocabulary: Path | None) -> SyntheticLines:
    """What lines to draw; see :class:`compress.data.lines.synthetic.SyntheticLines`, but that `test` may be none.

    Raises CompressError for lines lower than 16 or higher than 256 pixels.
    """
    if not 16 <= height <= 256:
        raise CompressError(f"--size {height}: lines are 16 to 256 pixels high; give one of those.")
    options = {"height": height, "words": words, "fonts": fonts, "vocabulary": vocabulary}
    return SyntheticLines(format="synthetic_lines", train=train, test=max(test, 1), **options)


def draw_lines(out: Path, format_name: str, source: SyntheticLines, parts: Sequence[str], seed: int) -> list[str]:
    """Write the parts of `source` into the new folder `out` as `lines` or `lmdb`; a sentence for each.

    There is no validation part: readers take it from the training lines. Raises CompressError as :func:`draw_folder` does, and for
    fonts and a vocabulary that cannot be used.
    """
    check_new(out)

    def write(partial: Path) -> None:
        for part in parts:
            WRITERS[format_name](partial, part, open_split(source, part, seed))

    appear(out, write)
    return [f"{part}: {getattr(source, part)} lines" for part in parts]


def drawn(folder: Path, writing: ImageFolder, part: str, count: int, size: int, seed: int) -> list[Files]:
    """So many photographs of a part, as JPEG in `folder`, with their words as the format `writing` has them."""
    found = []
    for index in range(count):
        words, image = draw(seed, part, index, size)
        shot = photographed(image, np.random.default_rng((seed, index)))
        path = folder / f"{words.name}.jpg"
        cv2.imwrite(str(path), cv2.cvtColor(shot, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        try:
            found.append(Files(words.name, path, path, writing.rendered(words)))
        except ValueError as error:
            raise CompressError(f"--format {writing.format} cannot hold what is drawn: {error}; give another format.") from None
    return found


def photographed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An (H, W, 3) uint8 RGB image as a camera sees it: lit unevenly, and with a grain that is coarser where it is dark."""
    height, width = image.shape[:2]
    light = rng.uniform(rng.uniform(*DARKEST), 1, (3, 3)).astype(np.float32)
    lit = image * cv2.resize(light, (width, height), interpolation=cv2.INTER_CUBIC).clip(0.2, 1)[..., None]
    grain = rng.normal(0, rng.uniform(1, 6), (height, width, 1)) * (1.5 - lit.mean(axis=2, keepdims=True) / 255)
    return np.clip(lit + grain + 0.5, 0, 255).astype(np.uint8)
