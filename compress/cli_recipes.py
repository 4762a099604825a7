"""`compress recipes`: the recipes that come with the workbench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def recipes(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Those to copy.", show_default="list all")] = None,
    out: Annotated[Path, typer.Option(help="The folder to copy them to.")] = Path("recipes"),
) -> None:
    """List the recipes that come with the workbench, or copy some, with those that they extend or name as teachers, to be changed.

    All can be run by name, without a copy. Nothing is overwritten.

    Examples:

      compress recipes

      compress run db_mv3_prune0.6_distill

      compress recipes db_mv3_prune0.6_distill --out mine
    """
    from compress import shipped

    for line in shipped.copy(names, out) if names else shipped.told():
        typer.echo(line)
