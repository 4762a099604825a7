"""Decoded or drawn images kept on disk as plain uint8, so that reading one costs a page fault and no decoding.

An entry is a folder: `pixels.bin`, the images one after another, and `index.json` with their shapes and annotations.
It is written under a temporary name and renamed when complete and on the disk. `index.sha256` is the index's digest, and the index holds
that of the pixels, which are read through again whenever the file system says that somebody has written to them. What does not add up is
named and built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.split import Annotation
from compress.errors import CompressError
from compress.files import digest
from compress.models.contract import Label, Line, Words

LAYOUT = 3
INDEX, INDEX_DIGEST, PIXELS = "index.json", "index.sha256", "pixels.bin"

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`$COMPRESS_CACHE`, or `~/.cache/compress`."""
    return Path(os.environ.get("COMPRESS_CACHE") or Path.home() / ".cache" / "compress").expanduser()


class Pixels:
    """`pixels(index)`: the (H, W, 3) uint8 image, a read-only view of the memory-mapped file."""

    def __init__(self, path: Path, shapes: list[tuple[int, int]]) -> None:
        self.path = path
        self.shapes = shapes
        self.starts = np.cumsum([0, *(3 * height * width for height, width in shapes)])
        self.bytes: np.ndarray | None = None

    def __call__(self, index: int) -> np.ndarray:
        if self.bytes is None:
            self.bytes = np.asarray(np.memmap(self.path, np.uint8, mode="r"))
        height, width = self.shapes[index]
        return self.bytes[self.starts[index] : self.starts[index + 1]].reshape(height, width, 3)

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as a copy of the whole file.
        return self.__dict__ | {"bytes": None}


@dataclass(frozen=True)
class Entry:
    """What `read_entry` found: the annotations, where their images are, and the problems met when it was written."""

    annotations: list[Annotation]
    pixels: Pixels
    problems: tuple[str, ...]


def read_entry(key: str) -> Entry | None:
    """The entry written under `key`, or None if there is none, or it is damaged, which is logged."""
    folder = cache_folder() / key
    try:
        content, said = (folder / INDEX).read_bytes(), (folder / INDEX_DIGEST).read_text(encoding="ascii")
        if said != hashlib.sha256(content).hexdigest():
            raise ValueError(f"{INDEX} is not what its digest says")
        index = json.loads(content)
        if index["layout"] != LAYOUT or index["key"] != key:
            return None
        pixels = Pixels(folder / PIXELS, [(int(height), int(width)) for height, width in index["shapes"]])
        if index["status"] != status_of(pixels.path) and index["pixels"] != digest(pixels.path):
            raise ValueError(f"{PIXELS} is not what its digest says")
        return Entry([annotation_from(item) for item in index["annotations"]], pixels, tuple(index["problems"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("The decoded images in %s are damaged (%s); they are made again.", folder, error)
        return None


def status_of(path: Path) -> list[int]:
    """What changes whenever a file is written to: its size, times of change of content and of inode, and inode."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def write_entry(key: str, images: Iterable[tuple[Annotation, np.ndarray]], problems: list[str]) -> None:
    """Write all `images` under `key`; `problems` is read after the last of them.

    Raises CompressError where the folder cannot be written. Whatever the iterator raises leaves nothing behind.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{key[:16]}.", suffix=".partial", dir=folder))
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        fill(partial, key, images, problems)
        publish(partial, folder / key, key)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def kept(key: str, images: Callable[[list[str]], Iterable[tuple[Annotation, np.ndarray]]]) -> Entry:
    """The entry under `key`, written first where there is none that is whole.

    images: gives them, with their annotations, and adds to the list what is wrong with the data.
    """
    entry = read_entry(key)
    if entry is None:
        problems: list[str] = []
        write_entry(key, images(problems), problems)
        entry = read_entry(key)
    if entry is None:
        raise CompressError(f"The cache {cache_folder()} does not keep what is written to it; set COMPRESS_CACHE to another folder.")
    return entry


def cannot_write(folder: Path, error: OSError) -> CompressError:
    return CompressError(
        f"The image cache {folder} cannot be written ({error}); free some space there or set COMPRESS_CACHE to another folder."
    )


def fill(folder: Path, key: str, images: Iterable[tuple[Annotation, np.ndarray]], problems: list[str]) -> None:
    annotations, shapes = [], []
    found = hashlib.sha256()
    with (folder / PIXELS).open("wb") as file:
        for annotation, image in images:
            stored = np.ascontiguousarray(image).data
            file.write(stored)
            found.update(stored)
            annotations.append(annotation_to(annotation))
            shapes.append(list(image.shape[:2]))
        file.flush()
        os.fsync(file.fileno())  # after a power failure a file of the right size may hold zeros
    index = {
        "layout": LAYOUT,
        "key": key,
        "shapes": shapes,
        "annotations": annotations,
        "problems": problems,
        "pixels": found.hexdigest(),
        "status": status_of(folder / PIXELS),
    }
    content = json.dumps(index).encode()
    (folder / INDEX).write_bytes(content)
    (folder / INDEX_DIGEST).write_text(hashlib.sha256(content).hexdigest(), encoding="ascii")


def publish(partial: Path, final: Path, key: str) -> None:
    """Rename into place. Another process may have been faster: a whole entry of its is as good as ours."""
    if read_entry(key) is None:
        shutil.rmtree(final, ignore_errors=True)
        with contextlib.suppress(FileExistsError):
            partial.rename(final)


def annotation_to(annotation: Annotation) -> dict[str, Any]:
    """An annotation as values that JSON holds."""
    truth = annotation.truth
    if isinstance(truth, Words):
        held = {"polygons": [polygon.tolist() for polygon in truth.polygons], "ignore": truth.ignore.tolist(), "texts": truth.texts}
    else:
        held = vars(truth)
    return {"name": annotation.name, type(truth).__name__: held}


def annotation_from(item: dict[str, Any]) -> Annotation:
    """What :func:`annotation_to` was given."""
    kind = next(kind for kind in (Words, Line, Label) if kind.__name__ in item)
    held = item[kind.__name__]
    if kind is not Words:
        return Annotation(item["name"], kind(**held))
    polygons = [np.array(polygon, np.float32).reshape(-1, 2) for polygon in held["polygons"]]
    return Annotation(item["name"], Words(polygons, np.array(held["ignore"], bool), list(held["texts"])))
