"""Annotated images as they are stored: which files, what they say, what is wrong with them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from compress.data.images import read_image
from compress.errors import CompressError

Damaged = Literal["refuse", "skip"]
SHOWN = 5

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
    """`images(index)` decodes the file each time."""

    paths: list[Path]

    def __call__(self, index: int) -> np.ndarray:
        return read_image(self.paths[index])


def fingerprints(reader: str, files: list[Files]) -> tuple[str, str]:
    """sha256 of what decides the samples wherever the folder lies, and the cache's key: that, with paths and times of change."""
    digest, key = hashlib.sha256(reader.encode()), hashlib.sha256()
    for file in files:
        image = file.image.stat()
        digest.update(f"\n{file.name} {image.st_size} {len(file.content)}\n".encode() + file.content)
        key.update(f"{file.image.resolve()} {file.truth.resolve()} {image.st_mtime_ns}\n".encode())
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
    for number, line in enumerate((text_of(path, path.read_bytes(), problems) or "").split("\n"), 1):
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
    """UTF-8 text without its byte-order mark; None, with a problem, if it is something else."""
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})")
        return None


def summary(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{len(problems)} problems in the data: {'; '.join(problems[:SHOWN])}{more}."


def settle(problems: Sequence[str], damaged: Damaged) -> None:
    """A warning that counts and names `problems`, which are left out. Raises CompressError instead where they are to be refused."""
    if problems and damaged == "refuse":
        raise CompressError(f"{summary(problems)} Repair them, or set data.damaged to 'skip' to leave them out.")
    if problems:
        log.warning("%s They are left out.", summary(problems))
