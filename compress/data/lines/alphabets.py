"""The alphabet of a recipe's model, written out: from a dictionary, or from the texts of its data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from compress.data.files import text_of
from compress.data.split import SPLITS, Split
from compress.errors import CompressError, suggestion
from compress.models.alphabet import Alphabet, alphabet_of, from_dictionary, of_texts, written_as
from compress.models.contract import Line
from compress.yaml_text import read_yaml


def from_file(name: Any) -> dict[str, Any]:
    """The characters of a dictionary, one a line, as a `model` section has them; the space is added where it is not there.

    Raises CompressError for a file that is not there, is no UTF-8 text, or holds something else.
    """
    try:
        return written_as(from_dictionary(lines_of(name)))
    except ValueError as error:
        raise CompressError(f"model.alphabet.file: {name}: {error}") from None
    except CompressError as error:
        raise CompressError(f"model.alphabet.file: {error}") from None


def from_checkpoint(folder: Any) -> dict[str, Any]:
    """The characters of a recogniser's checkpoint, as its `model.yml` has them. Raises CompressError for a folder that has none."""
    path = Path(str(folder)) / "model.yml"
    if not path.is_file():
        raise CompressError(f"model.alphabet.checkpoint: {folder} is not a checkpoint: it has no {path.name}.")
    description = read_yaml(path)
    model = description.get("model") if isinstance(description, dict) else None
    if not isinstance(model, dict) or "alphabet" not in model:
        raise CompressError(f"model.alphabet.checkpoint: {path} has no alphabet; name a recogniser's checkpoint.")
    try:
        return written_as(alphabet_of(model["alphabet"]))
    except ValueError as error:
        raise CompressError(f"{path}: {error}") from None


def lines_of(name: Any) -> list[str]:
    """The lines of a dictionary. Raises CompressError for a file that is not there or is no UTF-8 text."""
    if not isinstance(name, str | Path) or not Path(name).is_file():
        raise CompressError(f"there is no file {name}; name a dictionary, one character a line.")
    problems: list[str] = []
    text = text_of(Path(name), Path(name).read_bytes(), problems)
    if text is None:
        raise CompressError(f"{problems[0]}; save it as UTF-8.")
    return text.removesuffix("\n").replace("\r\n", "\n").removesuffix("\r").split("\n")


def named_alphabet(written: str) -> Alphabet:
    """The alphabet of a name, or of a dictionary that lies there. Raises CompressError for anything else."""
    try:
        return alphabet_of(from_file(written) if Path(written).is_file() else written)
    except ValueError as error:
        raise CompressError(str(error).replace("model.alphabet", "--alphabet")) from None


def from_texts(splits: Iterable[Split]) -> dict[str, Any]:
    """All characters of the texts of some splits. Raises CompressError for data without texts."""
    truths = [annotation.truth for split in splits for annotation in split.annotations]
    if not truths or not all(isinstance(truth, Line) for truth in truths):
        raise CompressError("model.alphabet.texts: the data hold no lines with texts; give {characters: ...} or {file: ...}.")
    try:
        return written_as(of_texts(truth.text for truth in truths))
    except ValueError as error:
        raise CompressError(f"model.alphabet.texts: {error}") from None


def split_names(written: Any) -> list[str]:
    """The splits that `texts` names, one or several. Raises CompressError for others."""
    names = written if isinstance(written, list) else [written]
    for name in names:
        if name not in SPLITS:
            raise CompressError(f"model.alphabet.texts: there is no split '{name}'{suggestion(str(name), SPLITS)}")
    return names
