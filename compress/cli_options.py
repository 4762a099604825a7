"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def named(recipe: Path | None) -> Path | None:
    """A recipe at a path, or one that comes with the workbench, by its name."""
    from compress.shipped import find

    return find(recipe) if recipe else None


Recipe = Annotated[Path, typer.Argument(callback=named, help="A recipe: its file, or the name of one that `compress recipes` lists.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--override", metavar="KEY=VALUE", help="Replace a value of the recipe: -o stages.baseline.epochs=2", show_default=False
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Folder = Annotated[Path | None, typer.Option(help="The experiment's folder.", show_default="experiments/<recipe>")]
Experiments = Annotated[list[Path], typer.Argument(help="Experiment folders, side by side.")]
