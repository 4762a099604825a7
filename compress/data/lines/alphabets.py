"""The alphabet of a recipe's model, written out: from a dictionary, or from the texts of its data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.data.files import text_of
from compress.data.split import SPLITS, Split
from compress.errors import CompressError, suggestion
from compress.models.alphabet import NAMED, Alphabet, alphabet_of, from_dictionary, of_texts, written_as
from compress.models.contract import Line
from compress.runtimes.runtime import telling
from compress.yaml_text import read_yaml

KEY = "character"  # of an ONNX file's metadata
PADDLE = (".onnx", ".yml", ".yaml")  # suffixes of what PaddleOCR's recognisers come as
PRIVATE = 0xE000, 0xE040  # code points; more entries than that are no characters but another file


def from_file(name: Any) -> dict[str, Any]:
    """The characters of a dictionary, as a `model` section has them; the space is added where it is not there.

    name: a text of one character a line, or what PaddleOCR's recognisers come as: the .onnx with its metadata, or the .yml. An entry of
    several code points there, such as a flag, becomes one of Unicode's private characters.
    Raises CompressError for a file that is not there, is no UTF-8 text, or holds something else.
    """
    try:
        _, entries = entries_of(name)
        return written_as(from_dictionary(one_each(entries)[0] if Path(str(name)).suffix in PADDLE else entries))
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


def entries_of(name: Any) -> tuple[str, list[str]]:
    """Where a dictionary is, in words, and its entries: of a text its lines, of a .yml its list, of an .onnx those of its metadata."""
    path = Path(str(name))
    if not path.is_file():
        raise CompressError(f"there is no file {name}; name a dictionary, one character a line.")
    if path.suffix in (".yml", ".yaml"):
        return str(path), listed(read_yaml(path), path)
    return of_model(path, metadata_of(path)) if path.suffix == ".onnx" else (str(path), lines_of(path))


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file. Raises CompressError for one that is damaged."""
    import onnx

    with telling(f"{path} cannot be read as an ONNX model; it is damaged: fetch or export it again"):
        return {entry.key: entry.value for entry in onnx.load(str(path), load_external_data=False).metadata_props}


def of_model(path: Path, metadata: Mapping[str, str]) -> tuple[str, list[str]]:
    """Where the dictionary of the recogniser in an ONNX file is, in words, and its entries: in its metadata, or in the .yml beside it."""
    beside = path.with_suffix(".yml")
    if KEY in metadata:
        return f"the metadata of {path}", metadata[KEY].removesuffix("\n").split("\n")
    if beside.is_file():
        return str(beside), listed(read_yaml(beside), beside)
    raise CompressError(
        f"{path} does not say which characters it reads, and there is no {beside.name} beside it; give --dictionary FILE, or in a recipe "
        "{file: dictionary.txt}."
    )


def listed(settings: Any, path: Path) -> list[str]:
    """`PostProcess.character_dict` of PaddleOCR's settings of a model."""
    section = settings.get("PostProcess") if isinstance(settings, dict) else None
    characters = section.get("character_dict") if isinstance(section, dict) else None
    if not isinstance(characters, list) or not all(isinstance(character, str) for character in characters):
        raise CompressError(f"{path} has no list of characters at PostProcess.character_dict; give a dictionary, one character a line.")
    return characters


def one_each(entries: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The entries with one of Unicode's private characters for each of several code points, as flags are, and which stands for which."""
    private = {entry: chr(number) for entry, number in zip((entry for entry in entries if len(entry) > 1), range(*PRIVATE), strict=False)}
    return [private.get(entry, entry) for entry in entries], private


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
    except ValueError:
        told = f"--alphabet: '{written}' is neither a file nor a name that is known{suggestion(written, NAMED)}"
        raise CompressError(f"{told} A file is a dictionary, one character a line.") from None


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
