"""Files that a command leaves for a user. What is there already is replaced only where the workbench itself has written it."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from compress.errors import CompressError
from compress.files import is_folder, remembered, write_json

# What is written says so near its beginning: a PNG file in its text, JSON in its first key, a page in its head.
MADE_BY = "made_by"
MAKER = "compress"
GENERATOR = f'<meta name="generator" content="{MAKER}">'
MARKS = (f"tEXtSoftware\0{MAKER}".encode("latin-1"), f'{{\n "{MADE_BY}": "{MAKER}"'.encode(), GENERATOR.encode())
# In a folder with files of other kinds, which cannot say it themselves: the names of those that the workbench writes there.
CLAIM = "made_by_compress.json"
HEAD = 256  # bytes that the mark is in


def png(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as a PNG file that carries the mark."""
    text, stored = PngInfo(), io.BytesIO()
    text.add_text("Software", MAKER)
    Image.fromarray(image).save(stored, "PNG", pnginfo=text, compress_level=3)
    return stored.getvalue()


def made_here(path: Path) -> bool:
    """Whether it is a file that carries the mark."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return any(mark in head for mark in MARKS)


def check_folder(folder: Path) -> None:
    """CompressError where files cannot be written into `folder`, as far as that can be known before; it need not be there yet."""
    nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise CompressError(f"{folder} cannot hold files: {nearest} is no folder; name another one with --out.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise CompressError(f"{folder} cannot hold files: {nearest} cannot be written to; name another one with --out.")


def check_new(folder: Path) -> None:
    """Refuse, with a CompressError, a folder that holds something already, and one that cannot be written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CompressError(f"{folder} is there already; name a folder that is new or empty.")
    check_folder(folder)


def check_file(path: Path) -> None:
    """CompressError where a file cannot be written to `path`, or where something is that the workbench has not written."""
    check_folder(path.parent)
    if is_folder(path):
        raise CompressError(f"{path} is a folder, and a file was to be written there; name another one with --out.")
    if os.path.lexists(path) and not made_here(path):
        raise CompressError(f"{path} is there already, and compress has not made it; move it away, or name another one with --out.")


def claim(folder: Path, names: Collection[str]) -> None:
    """Make `folder`, and write down that what is called one of `names` in it is the workbench's own, to be replaced by the next call.

    Raises CompressError where it cannot be written into, or where something is called so that the workbench has not claimed before.
    """
    check_folder(folder)
    known = set(remembered(folder / CLAIM, list[str]) or ())
    for name in sorted(set(names) - known):
        if os.path.lexists(folder / name):
            told = f"{folder / name} is there already, and compress has not made it"
            raise CompressError(f"{told}; move it away, or name another folder with --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CLAIM, sorted(known.union(names)))
    except OSError as error:
        raise CompressError(f"{folder} cannot be written into ({error.strerror}); name another one with --out.") from None


def write(files: Mapping[Path, bytes]) -> None:
    """Write each file whole or not at all, and none of them where one cannot be written.

    Raises CompressError for that, and for what :func:`check_file` refuses.
    """
    temporaries: dict[Path, Path] = {}
    for path in files:
        check_file(path)
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # short: the name of the file may be as long as names can be
            with temporary.open("xb") as file:
                temporaries[path] = temporary
                file.write(content)
        for path, temporary in temporaries.items():
            temporary.replace(path)
    except OSError as error:
        raise CompressError(f"{path} cannot be written ({error.strerror}); nothing of it was left.") from None
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
