"""The characters of an exported recogniser: in the file's metadata, in the .yml beside it, or in a list of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from compress.data.lines.alphabets import entries_of, of_model, one_each
from compress.errors import CompressError
from compress.models.alphabet import Alphabet, from_dictionary


def dictionary_of(path: Path, metadata: Mapping[str, str], classes: int, given: Path | None) -> tuple[Alphabet, dict[str, str]]:
    """The alphabet of the model at `path` with `classes` outputs, the blank among them, and what stands in it for what.

    An entry of several code points, such as the flags in PP-OCRv5's dictionary, is read as one of Unicode's private characters.

    given: a file as for :func:`compress.data.lines.alphabets.entries_of`, which is read instead of the metadata and the .yml.
    PaddleOCR adds the space to a dictionary, though some hold it: where there are one or two classes more than the blank and the
    characters, they are spaces.
    Raises CompressError where there is no dictionary, where it is damaged, and where its length is another.
    """
    place, characters = entries_of(given) if given is not None else of_model(path, metadata)
    spaces = classes - 1 - len(characters)
    if not 0 <= spaces <= 2:
        raise CompressError(
            f"{place} holds {len(characters)} characters, but {path} gives {classes} classes, the blank among them; it is another "
            "model's: give its own dictionary with --dictionary."
        )
    try:
        entries, private = one_each(characters)
        return from_dictionary([*entries, *[" "] * spaces], space=False), private
    except ValueError as error:
        raise CompressError(f"{place}: {error}") from None
