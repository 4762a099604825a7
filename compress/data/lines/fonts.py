"""The fonts of synthetic lines: those of matplotlib, and those of a folder."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from compress.data.rendering import FONTS, WritingError, face, font_file, rendered
from compress.errors import CompressError
from compress.models.alphabet import PRINTABLE

SUFFIXES = (".ttf", ".otf", ".ttc")
TEX = ("cmr10", "cmss10", "cmb10")  # laid out as TeX lays out text: other characters are in these places
ELSEWHERE_IN_TEX = frozenset('"<>\\^_`{|}~')
NEEDED = frozenset(character for character in PRINTABLE if character.isalnum())
TRIED_AT = 32.0  # pixels


def default_fonts() -> list[Path]:
    """The files of matplotlib's fonts."""
    return [font_file(name) for name in FONTS]


def fonts_in(folder: Path) -> tuple[list[Path], list[str]]:
    """The files of fonts below `folder`, and a sentence for each that is left out because it lacks letters or digits.

    Raises CompressError for a folder that is not there or has no font that can be used, and for a file that is no font.
    """
    if not folder.is_dir():
        raise CompressError(f"data.fonts: there is no folder {folder}; give one that holds fonts, files {', '.join(SUFFIXES)}.")
    found = sorted((path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES), key=Path.as_posix)
    usable = [path for path in found if NEEDED.issubset(characters(path))]
    if not usable:
        what = "no font that has all letters and digits" if found else f"no font, no file {', '.join(SUFFIXES)}"
        raise CompressError(f"data.fonts: {folder} holds {what}; name another folder, or leave `fonts` out.")
    return usable, [f"{path}: the font lacks letters or digits" for path in found if path not in usable]


@cache
def characters(path: Path) -> frozenset[str]:
    """The printable ASCII characters that the font in a file draws. Raises CompressError for a file that is no font."""
    try:
        places = face(path).get_charmap()
        drawn = frozenset(character for character in PRINTABLE if ord(character) in places and leaves_ink(path, character))
    except (RuntimeError, OSError) as error:
        raise CompressError(f"data.fonts: {path} cannot be read as a font ({error}); take it out of the folder.") from None
    return drawn - ELSEWHERE_IN_TEX if path.stem in TEX else drawn


def leaves_ink(path: Path, character: str) -> bool:
    """Whether the font has a shape for the character, and not only a place."""
    try:
        rendered(face(path), TRIED_AT, character)
    except WritingError:
        return False
    return True


def digest(fonts: list[Path]) -> str:
    """sha256, in hexadecimal, of the files in their order."""
    found = hashlib.sha256()
    for path in fonts:
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
