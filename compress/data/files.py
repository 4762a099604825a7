"""Annotated images as they are stored: which files, what they say, what is wrong with them."""

from __future__ import annotations

import codecs
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from compress.data.digests import file_digests
from compress.data.images import read_image
from compress.errors import CompressError
from compress.files import read_bytes

Damaged = Literal["refuse", "skip"]
SHOWN = 5
MENDED = " Repair them, or set data.damaged to 'skip' to leave them out."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """An image and its annotations as they are stored: `content`, found in the file `truth`, at `line` where it holds several images.

    name: the image's file name without the suffix, with folders where the format lists paths.
    """

    name: str
    image: Path
    truth: Path
    content: bytes
    line: int = 0


@dataclass(frozen=True)
class Images:
    """`images(index)` decodes the file each time. stored: its pixels as they are stored, whatever its EXIF orientation says."""

    paths: list[Path]
    stored: bool = False

    def __call__(self, index: int) -> np.ndarray:
        return read_image(self.paths[index], stored=self.stored)


def fingerprints(reader: str, files: list[Files]) -> tuple[str, str]:
    """sha256 of what decides the samples wherever the folder lies, and the cache's key: that, with the paths that problems name."""
    digest, key = hashlib.sha256(reader.encode()), hashlib.sha256()
    for file, image in zip(files, file_digests([file.image for file in files]), strict=True):
        digest.update(os.fsencode(f"\n{file.name} {image} {len(file.content)}\n") + file.content)
        key.update(os.fsencode(f"{file.image.resolve()} {file.truth.resolve()}\n"))
    key.update(digest.digest())
    return digest.hexdigest(), key.hexdigest()


def tabbed(line: str) -> list[tuple[str, str]]:
    """`path<TAB>content`: the path and what is said of it; nothing for any other line."""
    place, tab, content = line.partition("\t")
    return [(place, content)] if tab and place else []


def listed(
    path: Path, folders: Sequence[Path], what: str, problems: list[str], parted: Callable[[str], list[tuple[str, str]]] = tabbed
) -> Iterator[Files]:
    """The images that the file at `path` lists, a line `path<TAB>content` for each, in its order.

    folders: where the paths may lead on from; the first that has the image counts. what: the content, for messages. parted: a line to the
    paths in it and what it says of each. Lines that cannot be used go to `problems`.
    """
    for number, line in enumerate((text_of(path, read_bytes(path, "list of images"), problems) or "").split("\n"), 1):
        if not line.strip():
            continue
        found = parted(line.rstrip("\r"))
        if not found:
            problems.append(f"{path}:{number}: a path, a tab and {what} are needed")
        for place, content in found:
            if image := next((folder / place for folder in folders if there(folder / place)), None):
                yield Files(str(PurePosixPath(place).with_suffix("")), image, path, content.encode(), number)
            else:
                problems.append(f"{path}:{number}: there is no image {folders[0] / place}")


def there(path: Path) -> bool:
    """Whether there is such a file; of a name that no file can have there is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def text_of(path: Path, content: bytes, problems: list[str]) -> str | None:
    """UTF-8 text, or UTF-16 where a byte-order mark says so, without the mark; None, with a problem, if it is something else."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        told = "UTF-16 text, as its first bytes say" if wide else "UTF-8 text; save it as such"
        problems.append(f"{path}: not {told} ({error.reason} at byte {error.start})")
        return None


def summary(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{len(problems)} problems in the data: {'; '.join(problems[:SHOWN])}{more}."


def settle(problems: Sequence[str], damaged: Damaged) -> None:
    """A warning that counts and names `problems`, which are left out. Raises CompressError instead where they are to be refused."""
    if problems and damaged == "refuse":
        raise CompressError(summary(problems) + MENDED)
    if problems:
        log.warning("%s They are left out.", summary(problems))
