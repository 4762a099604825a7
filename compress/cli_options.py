"""What several commands share: options, and the way to say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Characters in what is told: a path may have some hundred, and a sentence names several.
LONGEST_WORD, LONGEST_SENTENCE = 500, 3000


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


def refuse(sentence: str) -> int:
    """Print what is wrong to standard error. What has no end, such as a whole file that stands where a name should, is shortened."""
    told = " ".join(shortened(word, LONGEST_WORD) for word in sentence.split())
    typer.secho(f"compress: {shortened(told, LONGEST_SENTENCE)}", fg="red", err=True)
    return 1


def shortened(text: str, most: int) -> str:
    """Text without its middle where it has more characters than `most`."""
    return text if len(text) <= most else f"{text[: most // 4]}...{text[-most // 4 :]}"
