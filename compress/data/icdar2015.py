"""ICDAR2015 incidental scene text (Karatzas et al. 2015, challenge 4): quadrilateral words, `###` for do-not-care."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from compress.data.augment import Augment
from compress.data.cache import read_entry, write_entry
from compress.data.split import Annotation, Split
from compress.errors import CompressError, suggestion

READER = 1  # raised whenever the same files come to be read differently
IMAGES = {
    "train": ("train_images", "ch4_training_images", "training_images"),
    "test": ("test_images", "ch4_test_images"),
}
TRUTHS = {
    "train": ("train_gts", "ch4_training_localization_transcription_gt", "training_gts"),
    "test": ("test_gts", "Challenge4_Test_Task1_GT", "ch4_test_gts", "ch4_test_localization_transcription_gt"),
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
DO_NOT_CARE = "###"
FURTHEST = 1e5  # pixels; a coordinate beyond it is damage, and its square would not fit the arithmetic downstream
SHOWN = 5

log = logging.getLogger(__name__)


class Icdar2015(BaseModel):
    """The data set in the folder `root`, with plain (`train_images`, `train_gts`) or the official folder names.

    val_list: names of the training pictures held out for validation, one a line; `val.txt` in the root if there is one.
    val_fraction: without a list, the share of the training pictures held out. They are one block of neighbours, because
        neighbouring numbers are neighbouring shots; where the block begins is decided by the seed.
    damaged: what to do with lines and pictures that cannot be used. `skip` leaves out the line, or the picture.
    cache: keep decoded pixels in the cache folder (2.8 MB a picture) instead of decoding each time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["icdar2015"]
    root: Path
    val_list: Path | None = None
    val_fraction: float = Field(default=0.15, gt=0, lt=1)
    damaged: Literal["refuse", "skip"] = "refuse"
    cache: bool = True

    def default_augment(self) -> Augment:
        return Augment()

    def splits(self) -> tuple[str, ...]:
        """Those of `train`, `val` and `test` that the folder holds. Raises CompressError if it holds none."""
        if not self.root.is_dir():
            raise CompressError(f"data.root: there is no folder {self.root}; give the folder that holds the ICDAR2015 pictures.")
        found = [split for split in ("train", "test") if folders(self.root, split)]
        if not found:
            raise CompressError(f"data.root: {self.root} holds neither {IMAGES['train'][0]} and {TRUTHS['train'][0]} nor a test part.")
        return tuple(split for part in found for split in (("train", "val") if part == "train" else ("test",)))

    def open(self, split: str, seed: int, progress: Callable[[int, int], None] | None = None) -> Split:
        """Read the annotations of `split`; pictures are decoded once into the cache, or when asked for without it.

        progress: called with (pictures done, pictures in all) while the cache is being written.
        Raises CompressError for a missing split, a validation list that does not fit, and damage unless it is skipped.
        """
        if split not in self.splits():
            raise CompressError(f"data.root: {self.root} has no {split} part{suggestion(split, self.splits())}")
        part = "test" if split == "test" else "train"
        files, unpaired = paired(*folders(self.root, part))
        if part == "train":
            held = self.held_out([file.name for file in files], seed)
            files = [file for file in files if (file.name in held) == (split == "val")]
        digest, key = fingerprints(files)
        if self.cache:
            entry = read_entry(key)
            if entry is None:
                problems: list[str] = []
                write_entry(key, usable(files, problems, progress), problems)
                entry = read_entry(key)
            annotations, picture, damage = entry.annotations, entry.pixels, entry.problems
        else:
            problems = []
            annotations = [words for words, _ in usable(files, problems, progress)]
            paths = {file.name: file.image for file in files}
            picture, damage = Pictures([paths[words.name] for words in annotations]), tuple(problems)
        damage = (*unpaired, *damage)
        if damage and self.damaged == "refuse":
            raise CompressError(f"{summary(damage)} Repair them, or set data.damaged to 'skip' to leave them out.")
        if damage:
            log.warning("%s They are left out.", summary(damage))
        if not annotations:
            raise CompressError(f"data: the {split} part of {self.root} has no pictures left; nothing can be done with it.")
        return Split(split, annotations, picture, digest, damage)

    def held_out(self, names: list[str], seed: int) -> set[str]:
        """Names of the training pictures that are the validation split."""
        path = self.val_list or Path("val.txt")
        path = path if path.is_absolute() else self.root / path
        if self.val_list is None and not path.is_file():
            first = int(np.random.default_rng(seed).integers(len(names)))
            count = max(1, round(self.val_fraction * len(names)))
            return {names[(first + step) % len(names)] for step in range(count)}
        if not path.is_file():
            raise CompressError(f"data.val_list: there is no file {path}; name a list of training pictures, one a line.")
        listed = [Path(line.strip()).stem for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        unknown = sorted(set(listed) - set(names))
        if unknown or not listed:
            what = f"names {len(unknown)} pictures that are not in the training part, {unknown[0]} first" if unknown else "is empty"
            raise CompressError(f"data.val_list: {path} {what}; list names of training pictures, one a line.")
        return set(listed)


@dataclass(frozen=True)
class Files:
    """A picture and its ground truth; `name` is the picture's file name without the suffix."""

    name: str
    image: Path
    truth: Path


@dataclass(frozen=True)
class Pictures:
    """`pictures(index)` decodes the file each time."""

    paths: list[Path]

    def __call__(self, index: int) -> np.ndarray:
        image = decode(self.paths[index])
        if image is None:
            raise CompressError(f"{self.paths[index]}: the picture could be decoded before and cannot now; was it changed?")
        return image


def folders(root: Path, part: str) -> tuple[Path, Path] | None:
    """The folders of pictures and of ground truth of `train` or `test`, or None if either is missing."""
    images = next((root / name for name in IMAGES[part] if (root / name).is_dir()), None)
    truths = next((root / name for name in TRUTHS[part] if (root / name).is_dir()), None)
    return (images, truths) if images and truths else None


def paired(images: Path, truths: Path) -> tuple[list[Files], list[str]]:
    """Pictures with their ground truth in the order of their numbers, and a sentence for each file without its partner."""
    pictures = {path.stem: path for path in sorted(images.iterdir()) if path.suffix.lower() in SUFFIXES}
    texts = {path.stem.removeprefix("gt_"): path for path in sorted(truths.iterdir()) if path.suffix.lower() == ".txt"}
    alone = [f"{pictures[name]}: there is no ground truth for it in {truths}" for name in sorted(pictures.keys() - texts.keys())]
    alone += [f"{texts[name]}: there is no picture for it in {images}" for name in sorted(texts.keys() - pictures.keys())]
    names = sorted(pictures.keys() & texts.keys(), key=by_number)
    return [Files(name, pictures[name], texts[name]) for name in names], alone


def fingerprints(files: list[Files]) -> tuple[str, str]:
    """sha256 of what decides the samples wherever the folder lies, and the cache's key: that, with paths and times of change."""
    digest, key = hashlib.sha256(f"icdar2015 {READER}".encode()), hashlib.sha256()
    for file in files:
        image, truth = file.image.stat(), file.truth.read_bytes()
        digest.update(f"\n{file.name} {image.st_size} {len(truth)}\n".encode() + truth)
        key.update(f"{file.image.resolve()} {file.truth.resolve()} {image.st_mtime_ns}\n".encode())
    key.update(digest.digest())
    return digest.hexdigest(), key.hexdigest()


def usable(files: list[Files], problems: list[str], progress: Callable[[int, int], None] | None) -> Iterator[tuple[Annotation, np.ndarray]]:
    """Words and pixels of every picture that can be read; what cannot is added to `problems`."""
    for done, file in enumerate(files, 1):
        words = parse(file.truth, file.name, problems)
        image = decode(file.image)
        if image is None:
            problems.append(f"{file.image}: the picture cannot be read or decoded")
        elif words is not None:
            yield words, image
        if progress:
            progress(done, len(files))


def by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def decode(path: Path) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB, or None if the file is not a whole picture."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    # The JPEG decoder fills what is missing with grey and calls it a success: look for the end marker after the last scan.
    if data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def parse(path: Path, name: str, problems: list[str]) -> Annotation | None:
    """Read one ground truth file; damaged lines are added to `problems` and left out. None if it is not text."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})")
        return None
    polygons, texts = [], []
    for number, line in enumerate(lines, 1):
        line = line.removeprefix("\ufeff").removesuffix("\r")
        if not line.strip():
            continue
        try:
            polygon, text = parse_line(line)
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        polygons.append(polygon)
        texts.append(text)
    return Annotation(name, polygons, np.array([text == DO_NOT_CARE for text in texts], bool), texts)


def parse_line(line: str) -> tuple[np.ndarray, str]:
    """`x1,y1,x2,y2,x3,y3,x4,y4,text` to a (4, 2) float32 polygon and the text, in which commas may stand.

    Raises ValueError, saying what is wrong.
    """
    fields = line.split(",", 8)
    if len(fields) != 9:
        raise ValueError(f"8 coordinates and a transcription are needed, there are {len(fields)} fields")
    try:
        values = [float(value) for value in fields[:8]]
    except ValueError:
        raise ValueError(f"not all of the coordinates {','.join(fields[:8])} are numbers") from None
    if not all(math.isfinite(value) and abs(value) <= FURTHEST for value in values):
        raise ValueError(f"the coordinates {','.join(fields[:8])} are out of bounds")
    polygon = np.array(values, np.float64).reshape(4, 2)
    x, y = polygon.T
    if abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) < 1e-3:
        raise ValueError(f"the word '{fields[8]}' has no area")
    return polygon.astype(np.float32), fields[8].strip()


def summary(problems: tuple[str, ...]) -> str:
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{len(problems)} problems in the data: {'; '.join(problems[:SHOWN])}{more}."
