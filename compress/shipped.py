"""The recipes that come with the workbench: found by name, told in a line, copied with those that they need."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from compress.errors import CompressError
from compress.files import write_bytes
from compress.outputs import check_folder
from compress.recipe_file import read_file, recipe_and_stage


def folder() -> Path:
    """Where they lie: `recipes/` of the repository, or of the installed package."""
    return Path(str(files("compress.recipes")))


def names() -> list[str]:
    """All of them, as `db_resnet50` and `icdar2015/db_resnet50`."""
    return sorted(path.relative_to(folder()).with_suffix("").as_posix() for path in folder().rglob("*.yml"))


def find(name: Path) -> Path:
    """`name` where there is something at this path, else the shipped recipe that is called so, with or without `.yml`.

    A name that leads nowhere is given back as it is.
    """
    if name.exists():
        return name
    plain = name.as_posix().removesuffix(".yml")
    return folder() / f"{plain}.yml" if plain in names() else name


def told() -> list[str]:
    """A line for each: its name, and what it is."""
    width = max(map(len, names()))
    return [f"{name:<{width}}  {about(folder() / f'{name}.yml')}" for name in names()]


def about(path: Path) -> str:
    """The first clause of the comment that a recipe begins with, without what is in brackets."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    text = re.sub(r" ?\([^)]*\)", "", " ".join(comment))
    return re.split(r"(?<=\?) |[.:;](?: |$)", text, maxsplit=1)[0]


def copy(wanted: Sequence[str], out: Path) -> list[Path]:
    """Copy shipped recipes, with all that they extend or name as a teacher or a start, to the same places below `out`.

    Returns the files, the wanted ones first; one that is there already with the same content counts as copied. Raises CompressError for
    a name that is not known, and, before anything is written, for a file that would be replaced.
    """
    root, known = folder(), names()
    plain = [name.removesuffix(".yml") for name in wanted]
    for name in plain:
        if name not in known:
            raise CompressError(f"No recipe called '{name}' comes with the workbench; `compress recipes` lists those that do.")
    sources: dict[Path, None] = {}
    for name in plain:
        collect(root / f"{name}.yml", sources)
    targets = {source: out / source.relative_to(root) for source in sources}
    check_folder(out)
    for source, target in targets.items():
        if os.path.lexists(target) and not (target.is_file() and target.read_bytes() == source.read_bytes()):
            raise CompressError(f"{target} is there already and would be replaced; give another folder with --out.")
    for source, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, source.read_bytes())
    return list(targets.values())


def collect(path: Path, found: dict[Path, None]) -> None:
    """Note a recipe and, recursively, those that it names by paths relative to itself."""
    if path in found:
        return
    found[path] = None
    for text in texts(read_file(path).values):
        near = (path.parent / recipe_and_stage(text)[0]).resolve()
        if near.suffix == ".yml" and near.is_relative_to(folder().resolve()) and near.is_file():
            collect(folder() / near.relative_to(folder().resolve()), found)


def texts(value: Any) -> Iterator[str]:
    """Every string in a value of a YAML file."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)
