"""Images that text files list, a line `path<TAB>truth` for each: texts of lines, labels of classes."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from compress.data.cache import kept
from compress.data.data_format import DataFormat
from compress.data.files import Damaged, Files, Images, fingerprints, listed, settle
from compress.data.images import read_image
from compress.data.lines.augment import AugmentLine
from compress.data.split import SPLITS, Annotation, Split
from compress.errors import CompressError, suggestion


class ImageLists(DataFormat):
    """Images in the folder `root`, and the lists that name them, a line `path<TAB>truth` for each.

    root: paths in the lists lead on from this folder, or from the one above it.
    train, val, test: the lists, seen from `root`; unless named, files of the usual names are looked for.
    val_fraction: without a list for `val`, the share of the training images held out: a block of neighbours, decided by the seed.
    damaged: what to do with lines and images that cannot be used; `skip` leaves them out.
    cache: keep decoded pixels in the cache folder. Without it an image is decoded, and found to be damaged, when it is asked for.
    """

    reader: ClassVar[int] = 1  # raised whenever the same files come to be read differently
    usual: ClassVar[tuple[str, ...]]  # names of lists; the split goes into the braces
    holds: ClassVar[str]  # what a line says of its image, for messages

    root: Path
    train: Path | None = None
    val: Path | None = None
    test: Path | None = None
    val_fraction: float = Field(default=0.15, gt=0, lt=1)
    damaged: Damaged = "refuse"
    cache: bool = True

    @abstractmethod
    def truth(self, content: str) -> Any:
        """The truth that a line holds. Raises ValueError, saying what is wrong with it."""

    def kind(self, _content: str) -> str:
        """Of each kind its own share is held out."""
        return ""

    def default_augment(self) -> AugmentLine:
        """How the images are augmented unless a recipe says otherwise."""
        return AugmentLine()

    def splits(self) -> tuple[str, ...]:
        """Those of `train`, `val` and `test` that there are. Raises CompressError if there are none."""
        if not self.root.is_dir():
            raise CompressError(f"data.root: there is no folder {self.root}; give the folder that holds the lists and images.")
        found = [split for split in SPLITS if self.list_of(split)]
        if not found:
            names = " or ".join(name.format(SPLITS[0]) for name in self.usual)
            raise CompressError(f"data.root: {self.root} holds no list {names}, nor one for val or test; name one by data.train.")
        return tuple(split for split in SPLITS if split in found or (split == "val" and "train" in found))

    def list_of(self, split: str) -> Path | None:
        """The list of a split: the one that is named, or the first of the usual ones. Raises CompressError for a name without a file."""
        named = getattr(self, split)
        if named and not (self.root / named).is_file():
            raise CompressError(f"data.{split}: there is no file {self.root / named}; name a list of lines `path<TAB>{self.holds}`.")
        return next((self.root / name for name in ([named] if named else self.names(split)) if (self.root / name).is_file()), None)

    def names(self, split: str) -> list[str]:
        """The usual names of a split's list."""
        return [name.format(split) for name in self.usual]

    def open(self, split: str, seed: int, progress: Callable[[int, int], None] | None = None) -> Split:
        """Read the list of `split`; images are decoded once into the cache, or when asked for without it.

        progress: called with (images done, images in all) while the cache is being written.
        Raises CompressError for a missing split, and for damage unless it is skipped.
        """
        if split not in self.splits():
            raise CompressError(f"data.root: {self.root} has no list for {split}{suggestion(split, self.splits())}")
        problems: list[str] = []
        files = self.files(split, seed, problems)
        digest, key = fingerprints(f"{self.format} {self.reader}", files)
        if self.cache:
            entry = kept(key, lambda damage: self.decoded(files, damage, progress))
            annotations = entry.annotations
            image: Callable[[int], np.ndarray] = entry.pixels
            problems += entry.problems
        else:
            annotations = [self.annotation(file) for file in files]
            image = Images([file.image for file in files])
        settle(problems, self.damaged)
        if not annotations and not problems:
            raise CompressError(f"data: the {split} part of {self.root} has no images left; nothing can be done with it.")
        return Split(split, annotations, image, digest, tuple(problems))

    def files(self, split: str, seed: int, problems: list[str]) -> list[Files]:
        """The images of a split, in the order of its list. What cannot be used is added to `problems`."""
        path = self.list_of(split) or self.list_of("train")
        if path is None:  # it was there when the splits were asked for
            raise CompressError(f"data.root: {self.root} has no list for {split} any more; restore it.")
        found: dict[Path, Files] = {}
        for file in listed(path, (self.root, self.root.parent), self.holds, problems):
            try:
                self.truth(file.content.decode())
            except ValueError as error:
                problems.append(f"{path}:{file.line}: {error}")
                continue
            if file.image in found:
                problems.append(f"{path}:{file.line}: {file.image} was listed before, in line {found[file.image].line}")
            else:
                found[file.image] = file
        files = list(found.values())
        if split == "test" or self.list_of("val"):
            return files
        held = held_out([self.kind(file.content.decode()) for file in files], self.val_fraction, seed)
        return [file for place, file in enumerate(files) if (place in held) == (split == "val")]

    def annotation(self, file: Files) -> Annotation:
        """Name and truth of an image whose line can be used."""
        return Annotation(file.name, self.truth(file.content.decode()))

    def decoded(
        self, files: Sequence[Files], problems: list[str], progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[Annotation, np.ndarray]]:
        """Truth and pixels of every image that decodes; the others are added to `problems`."""
        for done, file in enumerate(files, 1):
            try:
                image = read_image(file.image)
            except CompressError as error:
                problems.append(f"{file.truth}:{file.line}: {str(error).removesuffix('.')}")
            else:
                yield self.annotation(file), image
            if progress:
                progress(done, len(files))


def held_out(kinds: Sequence[str], fraction: float, seed: int) -> set[int]:
    """Places of those held out: of each kind a block of neighbours, `fraction` of them, but at least one is held out and one is left."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, kind in enumerate(kinds):
        places[kind].append(place)
    rng = np.random.default_rng(seed)
    held: set[int] = set()
    for kind in sorted(places):
        alike = places[kind]
        first = int(rng.integers(len(alike)))
        count = min(max(1, round(fraction * len(alike))), len(alike) - 1)
        held.update(alike[(first + step) % len(alike)] for step in range(count))
    return held
