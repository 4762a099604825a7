"""What data sets in folders share: images paired with annotations, the held-out split, damage, and the cache of decoded images."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from compress.data.cache import read_entry, write_entry
from compress.data.data_format import DataFormat
from compress.data.detection.augment import Augment
from compress.data.files import Files, Images, fingerprints, settle, text_of
from compress.data.images import read_image
from compress.data.split import Annotation, Split
from compress.errors import CompressError, suggestion
from compress.models.contract import Words

PARTS = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
FURTHEST = 1e5  # pixels; a coordinate beyond it is damage, and its square would not fit the arithmetic downstream
NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*", re.IGNORECASE)

Word = tuple[np.ndarray, str, bool]  # polygon, text, whether it is do-not-care


class ImageFolder(DataFormat):
    """The data set in the folder `root`.

    val_list: names of the training images held out for validation, one a line; `val.txt` in the root if there is one.
    val_fraction: without a list, the share of the training images held out. They are one block of neighbours, because
        neighbouring numbers are neighbouring shots; where the block begins is decided by the seed.
    damaged: what to do with lines and images that cannot be used. `skip` leaves out the line, or the image.
    cache: keep decoded pixels in the cache folder (2.8 MB an image) instead of decoding each time.
    """

    reader: ClassVar[int] = 1  # raised whenever the same files come to be read differently
    task: ClassVar[str] = "detection"
    expected: ClassVar[str]  # what the training part of such a folder holds, in words

    format: str
    root: Path
    val_list: Path | None = None
    val_fraction: float = Field(default=0.15, gt=0, lt=1)
    damaged: Literal["refuse", "skip"] = "refuse"
    cache: bool = True

    @abstractmethod
    def has(self, part: str) -> bool:
        """Whether the folder holds the part `train` or `test`."""

    @abstractmethod
    def files(self, part: str) -> tuple[list[Files], list[str]]:
        """The images of a part that is there, and a sentence for each file without its partner."""

    @abstractmethod
    def words(self, file: Files, problems: list[str]) -> Annotation | None:
        """Read annotations; damaged ones are added to `problems` and left out. None if nothing of them can be read."""

    @abstractmethod
    def rendered(self, words: Annotation) -> bytes:
        """`words` as :meth:`words` reads them. Raises ValueError for a shape that the format cannot hold."""

    @abstractmethod
    def save(self, pictures: Mapping[str, Sequence[Files]]) -> None:
        """Write a data set into `root`: for each part copies of the images, and each one's rendered content, under its name."""

    def default_augment(self) -> Augment:
        return Augment()

    def splits(self) -> tuple[str, ...]:
        """Those of `train`, `val` and `test` that the folder holds. Raises CompressError if it holds none."""
        if not self.root.is_dir():
            raise CompressError(f"data.root: there is no folder {self.root}; give the folder that holds the {self.format} images.")
        found = [part for part in PARTS if self.has(part)]
        if not found:
            raise CompressError(f"data.root: {self.root} holds neither {self.expected} nor a test part.")
        return tuple(split for part in found for split in (("train", "val") if part == "train" else ("test",)))

    def open(self, split: str, seed: int, progress: Callable[[int, int], None] | None = None) -> Split:
        """Read the annotations of `split`; images are decoded once into the cache, or when asked for without it.

        progress: called with (images done, images in all) while the cache is being written.
        Raises CompressError for a missing split, a validation list that does not fit, and damage unless it is skipped.
        """
        if split not in self.splits():
            raise CompressError(f"data.root: {self.root} has no {split} part{suggestion(split, self.splits())}")
        part = "test" if split == "test" else "train"
        files, unpaired = self.files(part)
        if part == "train" and files:
            held = self.held_out([file.name for file in files], seed)
            files = [file for file in files if (file.name in held) == (split == "val")]
        digest, key = fingerprints(f"{self.format} {self.reader}", files)
        if self.cache:
            entry = read_entry(key)
            if entry is None:
                problems: list[str] = []
                write_entry(key, self.usable(files, problems, progress), problems)
                entry = read_entry(key)
            annotations, picture, damage = entry.annotations, entry.pixels, entry.problems
        else:
            problems = []
            annotations = [words for words, _ in self.usable(files, problems, progress)]
            paths = {file.name: file.image for file in files}
            picture, damage = Images([paths[words.name] for words in annotations]), tuple(problems)
        damage = (*unpaired, *damage)
        settle(damage, self.damaged)
        if not annotations:
            raise CompressError(f"data: the {split} part of {self.root} has no images left; nothing can be done with it.")
        return Split(split, annotations, picture, digest, damage)

    def held_out(self, names: list[str], seed: int) -> set[str]:
        """Names of the training images that are the validation split."""
        path = self.val_list or Path("val.txt")
        path = path if path.is_absolute() else self.root / path
        if self.val_list is None and not path.is_file():
            first = int(np.random.default_rng(seed).integers(len(names)))
            count = max(1, round(self.val_fraction * len(names)))
            return {names[(first + step) % len(names)] for step in range(count)}
        if not path.is_file():
            raise CompressError(f"data.val_list: there is no file {path}; name a list of training images, one a line.")
        known = {PurePosixPath(name).name: name for name in names} | {name: name for name in names}
        lines = [PurePosixPath(line.strip()) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        listed = [known.get(str(line.parent / line.stem), known.get(line.stem)) for line in lines]
        unknown = sorted(line.stem for line, name in zip(lines, listed, strict=True) if name is None)
        if unknown or not listed:
            what = f"names {len(unknown)} images that are not in the training part, {unknown[0]} first" if unknown else "is empty"
            raise CompressError(f"data.val_list: {path} {what}; list names of training images, one a line.")
        return set(listed)

    def usable(
        self, files: list[Files], problems: list[str], progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[Annotation, np.ndarray]]:
        """Words and pixels of every image that can be read; what cannot is added to `problems`."""
        for done, file in enumerate(files, 1):
            words = self.words(file, problems)
            try:
                image = read_image(file.image)
            except CompressError as error:
                problems.append(str(error).removesuffix("."))
            else:
                if words is not None:
                    yield words, image
            if progress:
                progress(done, len(files))


class FilePerPicture(ImageFolder):
    """A data set with a file of annotations for each image.

    images, truths: part -> folders in the root that may hold its images, its annotations; the first are those written.
    truth_suffixes: endings of annotation files. written: what the one of an image is called when written.
    """

    images: ClassVar[Mapping[str, tuple[str, ...]]]
    truths: ClassVar[Mapping[str, tuple[str, ...]]]
    truth_suffixes: ClassVar[tuple[str, ...]] = (".txt",)
    written: ClassVar[str] = "gt_{}.txt"

    @staticmethod
    def paired_by(stem: str) -> str:
        """What the file names of an image and of its annotations, without suffixes, have in common."""
        return stem.removeprefix("gt_")

    def folders(self, part: str) -> tuple[Path, Path] | None:
        """The folders of images and of annotations of `train` or `test`, or None if either is missing."""
        found = [
            next((self.root / name for name in names[part] if (self.root / name).is_dir()), None) for names in (self.images, self.truths)
        ]
        return (found[0], found[1]) if all(found) else None

    def has(self, part: str) -> bool:
        return self.folders(part) is not None

    def files(self, part: str) -> tuple[list[Files], list[str]]:
        images, truths = self.folders(part)
        pictures = {self.paired_by(path.stem): path for path in sorted(images.iterdir()) if path.suffix.lower() in SUFFIXES}
        texts = {self.paired_by(path.stem): path for path in sorted(truths.iterdir()) if path.suffix.lower() in self.truth_suffixes}
        alone = [f"{pictures[key]}: there is no ground truth for it in {truths}" for key in sorted(pictures.keys() - texts.keys())]
        alone += [f"{texts[key]}: there is no image for it in {images}" for key in sorted(texts.keys() - pictures.keys())]
        both = sorted(pictures.keys() & texts.keys(), key=by_number)
        return [Files(pictures[key].stem, pictures[key], texts[key], texts[key].read_bytes()) for key in both], alone

    def save(self, pictures: Mapping[str, Sequence[Files]]) -> None:
        for part, files in pictures.items():
            images, truths = self.root / self.images[part][0], self.root / self.truths[part][0]
            copy_pictures(files, images)
            truths.mkdir(parents=True, exist_ok=True)
            for file in files:
                (truths / self.written.format(file.name)).write_bytes(file.content)


def by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]


def copy_pictures(files: Sequence[Files], folder: Path) -> None:
    """Copy each image, byte by byte, into `folder` as its name and its own suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / copied_name(file)).write_bytes(file.image.read_bytes())


def copied_name(file: Files) -> str:
    return f"{file.name}{file.image.suffix}"


def numbered_lines(file: Files, problems: list[str]) -> list[tuple[str, str]] | None:
    """The lines of a file that are not empty, each with its place, `path:number`; None if it is not text."""
    text = text_of(file.truth, file.content, problems)
    if text is None:
        return None
    lines = [line.removeprefix("\ufeff").removesuffix("\r") for line in text.split("\n")]
    return [(f"{file.truth}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def annotated(name: str, records: Iterable[tuple[str, Any]], parse: Callable[[Any], Word], problems: list[str]) -> Annotation:
    """The words of one image. Records, given with their place, for which `parse` raises ValueError go to `problems`."""
    polygons, texts, ignore = [], [], []
    for place, record in records:
        try:
            polygon, text, skip = parse(record)
        except ValueError as error:
            problems.append(f"{place}: {error}")
            continue
        polygons.append(polygon)
        texts.append(text)
        ignore.append(skip)
    return Annotation(name, Words(polygons, np.array(ignore, bool), texts))


def outlined(fields: Sequence[Any], text: str) -> np.ndarray:
    """`x1, y1, x2, y2 ...`, numbers or their texts, to an (n, 2) float32 polygon. Raises ValueError, saying what is wrong."""
    shown = ",".join(map(str, fields[:8])) + (",..." if len(fields) > 8 else "")
    try:
        values = [float(value) for value in fields]
    except (TypeError, ValueError):
        raise ValueError(f"not all of the coordinates {shown} are numbers") from None
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"an even number of coordinates, at least 6, is needed, there are {len(values)}")
    if not all(math.isfinite(value) and abs(value) <= FURTHEST for value in values):
        raise ValueError(f"the coordinates {shown} are out of bounds")
    polygon = np.array(values, np.float64).reshape(-1, 2)
    x, y = polygon.T
    if abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) < 1e-3:
        raise ValueError(f"the word '{text}' has no area")
    return polygon.astype(np.float32)


def numbers_and_text(line: str) -> tuple[list[str], str]:
    """`x1,y1,...,xn,yn,text`, whatever n: as many numbers as come in pairs, and the rest, in which commas may stand."""
    fields = line.split(",")
    numeric = next((place for place, field in enumerate(fields) if not NUMBER.fullmatch(field)), len(fields))
    count = numeric - numeric % 2
    return fields[:count], ",".join(fields[count:]).strip()


def coordinates(polygon: np.ndarray) -> list[str]:
    """`x1, y1, x2, y2 ...` in the fewest digits that give the same float32 back."""
    return [np.format_float_positional(value, trim="-") for value in np.asarray(polygon, np.float32).ravel()]


def json_points(polygon: np.ndarray) -> list[list[float]]:
    """`[[x, y], ...]` as :func:`coordinates` has them, whole numbers without a point."""
    values = [float(value) if "." in value else int(value) for value in coordinates(polygon)]
    return [values[place : place + 2] for place in range(0, len(values), 2)]


def one_line(text: str) -> str:
    return " ".join(text.splitlines())
