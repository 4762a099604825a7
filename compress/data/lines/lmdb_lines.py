"""Data format `lmdb`: images of lines and their texts in a Lightning database, as benchmarks of scene text recognition are given out.

Keys are `num-samples`, `image-000000001` (an encoded image), `label-000000001` (UTF-8 text), and so on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from compress.data.cache import kept
from compress.data.data_format import DataFormat
from compress.data.digests import file_digests
from compress.data.files import Damaged, settle
from compress.data.images import image_in
from compress.data.lines.augment_text import AugmentText
from compress.data.lists import held_out
from compress.data.split import SPLITS, Annotation, Split
from compress.errors import CompressError, suggestion
from compress.models.contract import Line

READER = 2  # raised whenever the same database comes to be read differently
FILE = "data.mdb"
MISSING = "Data of the format lmdb need the package lmdb; run `pip install compress-ocr[lmdb]`."


class LmdbLines(DataFormat):
    """Lines in Lightning databases: in the folders `train`, `val` and `test` below `root`, or one for training in `root` itself.

    val_fraction: without a database for `val`, the share of the training images held out: a block of neighbours, decided by the seed.
    damaged: what to do with entries that cannot be used; `skip` leaves them out.
    cache: keep decoded pixels in the cache folder; say false of a database with more lines than the disk has room for. Without it an
    image is decoded, and found to be damaged, when it is asked for.
    """

    task: ClassVar[str] = "recognition"

    format: Literal["lmdb"]
    root: Path
    val_fraction: float = Field(default=0.15, gt=0, lt=1)
    damaged: Damaged = "refuse"
    cache: bool = True

    def default_augment(self) -> AugmentText:
        """How the lines are augmented unless a recipe says otherwise."""
        return AugmentText()

    def database(self, split: str) -> Path | None:
        """The folder of a split's database; None where there is none."""
        places = [self.root / split, *([self.root] if split == "train" else [])]
        return next((place for place in places if (place / FILE).is_file()), None)

    def splits(self) -> tuple[str, ...]:
        """Those of `train`, `val` and `test` that there are. Raises CompressError if there are none."""
        found = [split for split in SPLITS if self.database(split)]
        if not found:
            raise CompressError(f"data.root: {self.root} holds no {FILE}, nor does a folder train, val or test in it; name another folder.")
        return tuple(split for split in SPLITS if split in found or (split == "val" and "train" in found))

    def open(self, split: str, seed: int, progress: Callable[[int, int], None] | None = None) -> Split:
        """Read the texts of `split`; images are decoded once into the cache, or when asked for without it.

        Raises CompressError for a missing split, a database that cannot be read, and for damage unless it is skipped.
        """
        if split not in self.splits():
            raise CompressError(f"data.root: {self.root} has no database for {split}{suggestion(split, self.splits())}")
        folder = self.database(split) or self.database("train") or self.root
        problems: list[str] = []
        entries = list(texts_in(folder, problems))
        if split != "test" and self.database("val") is None:
            held = held_out([""] * len(entries), self.val_fraction, seed)
            entries = [entry for place, entry in enumerate(entries) if (place in held) == (split == "val")]
        digest = hashlib.sha256(f"lmdb {READER}".encode())
        digest.update(file_digests([folder / FILE])[0].encode())
        for number, text in entries:
            digest.update(f"\n{number} {text}".encode())
        name = digest.hexdigest()
        if self.cache:
            key = hashlib.sha256(f"{name} {folder.resolve()}".encode()).hexdigest()
            entry = kept(key, partial(decoded, folder, entries, progress))
            annotations, image = entry.annotations, entry.pixels
            problems += entry.problems
        else:
            annotations = [annotation(number, text) for number, text in entries]
            image = Decoded(folder, [number for number, _ in entries])  # type: ignore[assignment]
        settle(problems, self.damaged)
        if not annotations:
            raise CompressError(f"data: the {split} part of {self.root} has no images left; nothing can be done with it.")
        return Split(split, annotations, image, name, tuple(problems))


def read_only(folder: Path) -> Any:
    """The environment of the database in `folder`, which closes with its `with` block: a process has each open once, and forks none.

    Raises CompressError for one that is cut off, whose reading would end the process, or that is no database.
    """
    try:
        import lmdb
    except ImportError:
        raise CompressError(MISSING) from None
    try:
        found = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False, create=False)
    except lmdb.Error as error:
        raise CompressError(f"{folder / FILE} cannot be read as a Lightning database ({error}); restore it.") from None
    whole, size = (found.info()["last_pgno"] + 1) * found.stat()["psize"], (folder / FILE).stat().st_size
    if size < whole:
        found.close()
        raise CompressError(f"{folder / FILE} is cut off: it has {size} bytes of {whole}; restore it.")
    return found


def texts_in(folder: Path, problems: list[str]) -> Iterator[tuple[int, str]]:
    """Number and text of every entry that can be used; what is wrong with others goes to `problems`."""
    with read_only(folder) as database, database.begin(buffers=True) as entries:
        yield from usable(entries.get, folder / FILE, problems)


def usable(get: Callable[[bytes], Any], path: Path, problems: list[str]) -> Iterator[tuple[int, str]]:
    """:func:`texts_in` of what `get` gives for a key."""
    count = bytes(get(b"num-samples") or b"")
    if not count.isdigit():
        raise CompressError(f"{path} has no number of lines under the key num-samples; it is no data set of lines.")
    for number in range(1, int(count) + 1):
        image, label = get(image_key(number)), get(label_key(number))
        try:
            if image is None or label is None:
                raise ValueError("has no image" if image is None else "has no text")
            text = bytes(label).decode("utf-8")
            if not text.strip() or "\t" in text or "\n" in text:
                raise ValueError("has an empty text" if not text.strip() else "has a text with a tab or a line break")
        except ValueError as error:
            told = "has a text that is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
            problems.append(f"{path}: line {number} {told}")
        else:
            yield number, text


def image_key(number: int) -> bytes:
    """The key of an image."""
    return b"image-%09d" % number


def label_key(number: int) -> bytes:
    """The key of its text."""
    return b"label-%09d" % number


def annotation(number: int, text: str) -> Annotation:
    """Name and text of an entry."""
    return Annotation(image_key(number).decode(), Line(text))


def image_at(folder: Path, number: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises CompressError for what does not decode."""
    with read_only(folder) as database, database.begin() as entries:
        data: bytes = entries.get(image_key(number)) or b""
    return image_in(data, f"{folder / FILE}: {image_key(number).decode()}")


def decoded(
    folder: Path, entries: Sequence[tuple[int, str]], progress: Callable[[int, int], None] | None, problems: list[str]
) -> Iterator[tuple[Annotation, np.ndarray]]:
    """Text and pixels of every image that decodes; the others are added to `problems`."""
    for done, (number, text) in enumerate(entries, 1):
        try:
            image = image_at(folder, number)
        except CompressError as error:
            problems.append(str(error).removesuffix("."))
        else:
            yield annotation(number, text), image
        if progress:
            progress(done, len(entries))


@dataclass(frozen=True)
class Decoded:
    """`decoded(index)` decodes the image with the index-th of `numbers` each time."""

    folder: Path
    numbers: list[int]

    def __call__(self, index: int) -> np.ndarray:
        return image_at(self.folder, self.numbers[index])
