"""A pipeline on disk: a folder with the exported files of its parts, and `pipeline.yml`, which says which they are and what lies between.

The description has the digest of every file, and is written last. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compress.errors import CompressError
from compress.files import digest, first_fault, write_text
from compress.models.contract import Algorithm
from compress.models.registry import build
from compress.runtimes import BESIDE
from compress.tasks import TASKS
from compress.tasks.ocr import PARTS
from compress.tasks.task import Evaluate
from compress.yaml_text import read_yaml

FORMAT = 1
DESCRIPTION = "pipeline.yml"
MODEL = {"name": "reader"}
OPTIONAL = "classifier"
TURNS = ("0", "180")  # labels that a classifier of angles has

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Part(BaseModel):
    """A part. file: its exported file, from the pipeline's folder. files: all of its files there, with their digests. characters: of a
    recogniser, its alphabet.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    files: dict[str, Sha256]
    characters: str | None = None


class Description(BaseModel):
    """`pipeline.yml`. evaluate: as the `evaluate` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    evaluate: dict[str, Any]
    parts: dict[str, Part]


@dataclass(frozen=True)
class Pipeline:
    """A description that was found to be whole, every file as it was left. files: part -> its exported file."""

    files: Mapping[str, Path]
    characters: str | None
    algorithm: Algorithm
    evaluate: Evaluate


def is_pipeline(folder: Path) -> bool:
    """Whether the folder has a description of a pipeline."""
    return (folder / DESCRIPTION).is_file()


def files_of(path: Path) -> list[Path]:
    """The files of an exported model: the one named, and the weights beside it."""
    return [path, path.with_suffix(".bin")] if path.suffix in BESIDE else [path]


def write(folder: Path, parts: Mapping[str, Path], evaluate: Evaluate, characters: str | None) -> None:
    """Write the description of a pipeline whose files lie in `folder` already. parts: part -> exported file."""
    described = {
        part: {
            "file": path.relative_to(folder).as_posix(),
            "files": {file.relative_to(folder).as_posix(): digest(file) for file in files_of(path)},
            **({"characters": characters} if TASKS[PARTS[part]].name == "recognition" else {}),
        }
        for part, path in parts.items()
    }
    values = {"format": FORMAT, "evaluate": evaluate.model_dump(mode="json"), "parts": described}
    write_text(folder / DESCRIPTION, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))


def read(folder: Path) -> Pipeline:
    """The pipeline in `folder`. Raises CompressError, naming the file, where a part is missing, damaged, or not what it should be."""
    path = folder / DESCRIPTION
    try:
        found = Description.model_validate(read_yaml(path))
        algorithm = build(MODEL)
        evaluate = TASKS[algorithm.task].evaluate(**found.evaluate)
    except ValidationError as error:
        raise CompressError(f"{path} is damaged: {first_fault(error)}; assemble the pipeline again.") from None
    if found.format != FORMAT:
        raise CompressError(f"{path} has format {found.format}; this version reads format {FORMAT}.")
    evaluate.settings(algorithm)
    if missing := [part for part in PARTS if part not in found.parts and part != OPTIONAL]:
        raise CompressError(f"{path} names no {missing[0]}; assemble the pipeline again.")
    if unknown := [part for part in found.parts if part not in PARTS]:
        raise CompressError(f"{path} names a part '{unknown[0]}', which is none of {', '.join(PARTS)}; assemble the pipeline again.")
    for part, its in found.parts.items():
        check_files(folder, part, its)
    files = {part: folder / found.parts[part].file for part in PARTS if part in found.parts}
    return Pipeline(files, found.parts["recogniser"].characters, algorithm, evaluate)


def check_files(folder: Path, part: str, its: Part) -> None:
    """Refuse files of a part that lie elsewhere, are missing, or are not what the description says."""
    path = folder / DESCRIPTION
    for name in {its.file, *its.files}:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise CompressError(f"{path}: the file {name} of the {part} is outside of the pipeline's folder; assemble the pipeline again.")
    if {file.relative_to(folder).as_posix() for file in files_of(folder / its.file)} != set(its.files):
        raise CompressError(f"{path}: the digests of the {part} are not those of its files; assemble the pipeline again.")
    for name, said in its.files.items():
        if not (folder / name).is_file():
            raise CompressError(f"{folder / name}, a file of the {part}, is missing; restore it, or assemble the pipeline again.")
        if digest(folder / name) != said:
            raise CompressError(f"{folder / name}, a file of the {part}, is damaged: it is not what {path} says; assemble it again.")


def check_part(part: str, origin: Path | str, algorithm: Algorithm, characters: str | None = None) -> None:
    """Refuse a model that cannot be this part. characters: those that a recogniser should have, None for any.

    Raises CompressError that names `origin`.
    """
    if algorithm.task != PARTS[part]:
        raise CompressError(f"{origin} cannot be the {part}: it is a model for {algorithm.task}, and one for {PARTS[part]} is needed.")
    if part == "classifier" and algorithm.labels != TURNS:
        raise CompressError(f"{origin} cannot be the classifier: its classes are {', '.join(algorithm.labels)}, not {' and '.join(TURNS)}.")
    if characters is not None and algorithm.alphabet and algorithm.alphabet.characters != characters:
        raise CompressError(f"{origin} has another alphabet than {DESCRIPTION} says of the {part}; assemble the pipeline again.")


def folder_bytes(folder: Path) -> int:
    """Bytes of the weights of all parts: what each exported file, or the .bin beside it, takes."""
    return sum(files_of(path)[-1].stat().st_size for path in read(folder).files.values())
