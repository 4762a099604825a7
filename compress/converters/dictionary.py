"""The characters of an exported recogniser: in the file's metadata, in the .yml beside it, or in a list of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.data.lines.alphabets import lines_of
from compress.errors import CompressError
from compress.models.alphabet import Alphabet, from_dictionary
from compress.yaml_text import read_yaml

KEY = "character"  # of the metadata
PRIVATE = 0xE000, 0xE040  # code points; more entries than that are no characters but another file


def dictionary_of(path: Path, metadata: Mapping[str, str], classes: int, given: Path | None) -> tuple[Alphabet, dict[str, str]]:
    """The alphabet of the model at `path` with `classes` outputs, the blank among them, and what stands in it for what.

    An entry of several code points, such as the flags in PP-OCRv5's dictionary, is read as one of Unicode's private characters.

    given: a text file, one character a line, which is read instead of the metadata and the .yml. PaddleOCR adds the space to a
    dictionary, though some hold it: where there are one or two classes more than the blank and the characters, they are spaces.
    Raises CompressError where there is no dictionary, where it is damaged, and where its length is another.
    """
    place, characters = characters_of(path, metadata, given)
    joined = [entry for entry in characters if len(entry) > 1]
    private = {entry: chr(number) for entry, number in zip(joined, range(*PRIVATE), strict=False)}
    spaces = classes - 1 - len(characters)
    if not 0 <= spaces <= 2:
        raise CompressError(
            f"{place} holds {len(characters)} characters, but {path} gives {classes} classes, the blank among them; it is another "
            "model's: give its own dictionary with --dictionary."
        )
    try:
        entries = [private.get(entry, entry) for entry in characters]
        return from_dictionary([*entries, *[" "] * spaces], space=False), private
    except ValueError as error:
        raise CompressError(f"{place}: {error}") from None


def characters_of(path: Path, metadata: Mapping[str, str], given: Path | None) -> tuple[str, list[str]]:
    """Where the dictionary is, in words, and its lines."""
    beside = path.with_suffix(".yml")
    if given is not None:
        return str(given), lines_of(given)
    if KEY in metadata:
        return f"the metadata of {path}", metadata[KEY].removesuffix("\n").split("\n")
    if beside.is_file():
        return str(beside), listed(read_yaml(beside), beside)
    raise CompressError(f"{path} does not say which characters it reads, and there is no {beside.name} beside it; give --dictionary FILE.")


def listed(settings: Any, path: Path) -> list[str]:
    """`PostProcess.character_dict` of PaddleOCR's settings of a model."""
    section = settings.get("PostProcess") if isinstance(settings, dict) else None
    characters = section.get("character_dict") if isinstance(section, dict) else None
    if not isinstance(characters, list) or not all(isinstance(character, str) for character in characters):
        raise CompressError(f"{path} has no list of characters at PostProcess.character_dict; give --dictionary FILE.")
    return characters
