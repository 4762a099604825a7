"""What data sets in folders share: images paired with annotations, the held-out split, damage, and the cache of decoded images."""

from __future__ import annotations

import logging
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from compress.data.cache import kept
from compress.data.data_format import DataFormat
from compress.data.detection.augment import Augment
from compress.data.files import Files, Images, fingerprints, settle, summary, text_of
from compress.data.images import SUFFIXES, read_image
from compress.data.split import Annotation, Split
from compress.errors import CompressError, suggestion
from compress.files import fingerprint, read_bytes
from compress.models.contract import Words

PARTS = ("train", "test")
FURTHEST = 1e5  # pixels; a coordinate beyond it is damage, and its square would not fit the arithmetic downstream
NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*", re.IGNORECASE)

log = logging.getLogger(__name__)

Word = tuple[np.ndarray, str, bool]  # polygon, text, whether it is do-not-care


class ImageFolder(DataFormat):
    """The data set in the folder `root`.

    val_list: names of the training images held out for validation, one a line; `val.txt` in the root if there is one.
    val_fraction: without a list, the share of the training images held out. They are one block of neighbours, because
        neighbouring numbers are neighbouring shots; where the block begins is decided by the seed.
    damaged: what to do with lines and images that cannot be used. `skip` leaves out the line, or the image.
    cache: keep decoded pixels in the cache folder (2.8 MB an image) instead of decoding each time.
    lexicon: words of which those that are read must be one: a file, one a line, for all images (ICDAR's weak and generic lexicons), or a
        folder with such a file for each image, called `<image>.txt` or `voc_<image>.txt` (strong). Detection does without.
    """

    reader: ClassVar[int] = 2  # raised whenever the same files come to be read differently
    task: ClassVar[str] = "detection"
    serves_too: ClassVar = ("ocr",)
    expected: ClassVar[str]  # what the training part of such a folder holds, in words
    # Whether coordinates are of the pixels as they are stored, whatever an image's EXIF orientation says, or as they are shown.
    stored: ClassVar[bool] = False

    format: str
    root: Path
    val_list: Path | None = None
    val_fraction: float = Field(default=0.15, gt=0, lt=1)
    damaged: Literal["refuse", "skip"] = "refuse"
    cache: bool = True
    lexicon: Path | None = None

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

    def check_names(self, names: Sequence[str]) -> None:
        """Raise CompressError for names of images that would not be found again with their annotations, once written."""

    @abstractmethod
    def save(self, parts: Mapping[str, Sequence[Files]]) -> None:
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
            held = self.held_out([file.name for file in files], seed, unpaired)
            files = [file for file in files if (file.name in held) == (split == "val")]
        digest, key = fingerprints(f"{self.format} {self.reader}", files)
        of_name = {file.name: file for file in files}
        image: Callable[[int], np.ndarray]
        if self.cache:
            entry = kept(key, lambda problems: self.usable(files, problems, progress))
            annotations, sizes, image, found = entry.annotations, entry.pixels.shapes, entry.pixels, entry.problems
        else:
            problems: list[str] = []
            usable = [(words, pixels.shape[:2]) for words, pixels in self.usable(files, problems, progress)]
            annotations, sizes = [words for words, _ in usable], [size for _, size in usable]
            image, found = Images([of_name[words.name].image for words in annotations], self.stored), tuple(problems)
        damage = (*unpaired, *found)
        settle(damage, self.damaged)
        if not annotations and not damage:
            raise CompressError(f"data: the {split} part of {self.root} has no images left; nothing can be done with it.")
        outside: list[str] = []
        annotations = [inside(words, size, of_name[words.name], outside) for words, size in zip(annotations, sizes, strict=True)]
        if outside:
            log.warning("%s They are not counted.", summary(outside))
        if self.lexicon:
            annotations = with_lexicons(annotations, self.lexicon)
            digest = fingerprint([digest, [annotation.truth.lexicon for annotation in annotations]])
        return Split(split, annotations, image, digest, (*damage, *outside))

    def has_val_list(self) -> bool:
        """Whether a list says which training images are held out."""
        return self.val_list is not None or (self.root / "val.txt").is_file()

    def held_out(self, names: list[str], seed: int, problems: list[str]) -> set[str]:
        """Names of the training images that are the validation split.

        problems: what is wrong with the training part; where something is, images of the list that are not in it are added. Raises
        CompressError for such images where nothing else is wrong, and for a list that cannot be read, is empty, or is not clear.
        """
        path = self.val_list or Path("val.txt")
        path = path if path.is_absolute() else self.root / path
        if self.val_list is None and not path.is_file():
            first = int(np.random.default_rng(seed).integers(len(names)))
            count = max(1, round(self.val_fraction * len(names)))
            return {names[(first + step) % len(names)] for step in range(count)}
        if not path.is_file():
            raise CompressError(f"data.val_list: there is no file {path}; name a list of training images, one a line.")
        faults: list[str] = []
        text = text_of(path, read_bytes(path, "list of images"), faults)
        if text is None:
            raise CompressError(f"data.val_list: {faults[0]}.")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        listed = named_images(lines, names)
        several = next((line for line in lines if len(listed[line]) > 1), None)
        if several:
            these = " or ".join(listed[several][:2])
            raise CompressError(f"data.val_list: {several} in {path} may be {these}; list names with their folders.")
        unknown = sorted(line for line in lines if not listed[line])
        if len(unknown) == len(lines) or (unknown and not problems):
            what = f"names {len(unknown)} images that are not in the training part, {unknown[0]} first" if unknown else "is empty"
            raise CompressError(f"data.val_list: {path} {what}; list names of training images, one a line.")
        problems += [f"{path}: {line} is not in the training part" for line in unknown]
        return {name for found in listed.values() for name in found}

    def usable(
        self, files: list[Files], problems: list[str], progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[Annotation, np.ndarray]]:
        """Words and pixels of every image that can be read; what cannot is added to `problems`."""
        for done, file in enumerate(files, 1):
            words = self.words(file, problems)
            try:
                image = read_image(file.image, stored=self.stored)
            except CompressError as error:
                problems.append(str(error).removesuffix("."))
            else:
                if words is not None:
                    yield words, image
            if progress:
                progress(done, len(files))


def named_images(lines: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Line -> those of `names` that it may mean: the name itself, or names that have more folders before it, or fewer.

    An image's ending may stand behind the name in a line; a name without it that has a point in it keeps what is behind that.
    """
    whole = set(names)
    ending: dict[tuple[str, ...], list[str]] = {}  # the last parts of names, however many -> the names
    for name in names:
        parts = PurePosixPath(name).parts
        for first in range(len(parts)):
            ending.setdefault(parts[first:], []).append(name)

    def meant(line: PurePosixPath) -> list[str]:
        if str(line) in whole:
            return [str(line)]
        shorter = ["/".join(line.parts[first:]) for first in range(1, len(line.parts))]
        return ending.get(line.parts) or [name for name in shorter if name in whole][:1]

    paths = {line: PurePosixPath(line) for line in lines}
    return {line: meant(path) or (meant(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else []) for line, path in paths.items()}


def with_lexicons(annotations: Sequence[Annotation], lexicon: Path) -> list[Annotation]:
    """The annotations, each with its words that may be read. Raises CompressError for a list that is missing or empty."""
    shared = None if lexicon.is_dir() else word_list(lexicon)
    found = []
    for annotation in annotations:
        names = [lexicon / f"{prefix}{PurePosixPath(annotation.name).name}.txt" for prefix in ("", "voc_")]
        words = shared or word_list(next((name for name in names if name.is_file()), names[0]))
        found.append(replace(annotation, truth=replace(annotation.truth, lexicon=words)))
    return found


def word_list(path: Path) -> tuple[str, ...]:
    """The words of a file, one a line. Raises CompressError for one that is missing, no text, or empty."""
    problems: list[str] = []
    text = text_of(path, read_bytes(path, "lexicon"), problems)
    words = tuple(line.strip() for line in (text or "").splitlines() if line.strip())
    if not words:
        raise CompressError(f"data.lexicon: {problems[0] if problems else f'{path} has no words'}; give a list of words, one a line.")
    return words


class FilePerImage(ImageFolder):
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
        images, truths = (
            next((self.root / name for name in names[part] if (self.root / name).is_dir()), None) for names in (self.images, self.truths)
        )
        return (images, truths) if images and truths else None

    def has(self, part: str) -> bool:
        return self.folders(part) is not None

    def files(self, part: str) -> tuple[list[Files], list[str]]:
        folders = self.folders(part)
        if folders is None:  # they were there when the parts were asked for
            raise CompressError(f"data.root: {self.root} has no {part} part any more; restore it.")
        images, truths = folders
        shown, texts = self.by_pair(images, SUFFIXES), self.by_pair(truths, self.truth_suffixes)
        problems = [f"{shown[key][0]}: there is no ground truth for it in {truths}" for key in sorted(shown.keys() - texts.keys())]
        problems += [f"{texts[key][0]}: there is no image for it in {images}" for key in sorted(texts.keys() - shown.keys())]
        found = []
        for key in sorted(shown.keys() & texts.keys(), key=by_number):
            if len(shown[key]) > 1 or len(texts[key]) > 1:
                problems.append(f"{listing(shown[key])} and {listing(texts[key])}: which ground truth is which image's is not clear")
                continue
            (image,), (truth,) = shown[key], texts[key]
            try:
                found.append(Files(image.stem, image, truth, read_bytes(truth, "ground truth")))
            except CompressError as error:
                problems.append(str(error).removesuffix("."))
        return found, problems

    def by_pair(self, folder: Path, suffixes: Collection[str]) -> dict[str, list[Path]]:
        """The files of a folder that end in one of `suffixes`, by what they have in common with their partners."""
        found: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in suffixes:
                found.setdefault(self.paired_by(path.stem), []).append(path)
        return found

    def check_names(self, names: Sequence[str]) -> None:
        taken: dict[str, str] = {}
        for name in names:
            key = self.paired_by(name)
            if (other := taken.setdefault(key, name)) != name:
                raise CompressError(f"{self.format} cannot tell the images {other} and {name} apart by their names; rename one of them.")
            if key != self.paired_by(Path(self.written.format(name)).stem):
                raise CompressError(f"{self.format} would not find the annotations of an image called {name}; rename it.")

    def save(self, parts: Mapping[str, Sequence[Files]]) -> None:
        for part, files in parts.items():
            images, truths = self.root / self.images[part][0], self.root / self.truths[part][0]
            copy_images(files, images)
            truths.mkdir(parents=True, exist_ok=True)
            for file in files:
                (truths / self.written.format(file.name)).write_bytes(file.content)


def listing(paths: Sequence[Path]) -> str:
    """`a.jpg and a.png`."""
    return " and ".join(map(str, paths))


def inside(annotation: Annotation, size: tuple[int, int], file: Files, problems: list[str]) -> Annotation:
    """The words of an image of `size` (height, width) but for those wholly outside of it, which are added to `problems`."""
    words, last = annotation.truth, np.array(size[::-1]) - 1
    far = [bool((polygon.max(0) < 0).any() or (polygon.min(0) > last).any()) for polygon in words.polygons]
    if not any(far):
        return annotation
    place = f"{file.truth}:{file.line}" if file.line else str(file.truth)
    texts = words.texts or [""] * len(far)
    lost = [f"'{text}' at {polygon[0].tolist()}" for polygon, text, out in zip(words.polygons, texts, far, strict=True) if out]
    problems += [f"{place}: the word {word} lies outside of {file.image}, which is {size[1]} x {size[0]} pixels" for word in lost]
    stay = [number for number, out in enumerate(far) if not out]
    return Annotation(
        annotation.name,
        Words([words.polygons[number] for number in stay], words.ignore[stay], [words.texts[number] for number in stay if words.texts]),
    )


def by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]


def copy_images(files: Sequence[Files], folder: Path) -> None:
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
    """`x1,y1,...,xn,yn,text`, whatever n: as many numbers as come in pairs, and the rest, in which commas may stand.

    Raises ValueError where the text, which may be a number with a comma such as 1,234, cannot be told from corners: where there is none,
    or where the last corner lies further from the others than they are from each other.
    """
    fields = line.split(",")
    numeric = next((place for place, field in enumerate(fields) if not NUMBER.fullmatch(field)), len(fields))
    count = numeric - numeric % 2
    if count == len(fields):
        raise ValueError(f"there is no text behind its {count // 2} corners, or the last of them, {','.join(fields[-2:])}, is the text")
    if count > 8:
        corners = np.array(fields[:count], float).reshape(-1, 2)
        low, high = corners[:-1].min(0), corners[:-1].max(0)
        if (np.maximum(low - corners[-1], corners[-1] - high) > (high - low).max()).any():
            raise ValueError(f"its last corner, {','.join(fields[count - 2 : count])}, is far from the others: it may belong to the text")
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
