"""`compress data`: look at data before training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli_options import Overrides, Recipe

app = typer.Typer(no_args_is_help=True, help="Look at data before training on them.")

FORMATS_HELP = "icdar2015, icdar2017, totaltext, ctw1500, msra_td500, paddleocr or cocotext; lines or lmdb."
DRAWN_HELP = FORMATS_HELP.replace(" msra_td500,", "")  # holds rectangles alone, and drawn words lean
CHECKED_HELP = "icdar2015, icdar2017, totaltext, ctw1500, msra_td500, paddleocr, cocotext, lines, lmdb or labels."


@app.command("check")
def data_check(
    root_folder: Annotated[Path, typer.Argument(metavar="ROOT", help="The folder of the data.")],
    data: Annotated[str, typer.Option("--format", help=CHECKED_HELP)] = "icdar2015",
    out: Annotated[
        Path | None, typer.Option(help="Where to draw some images with their words, as PNG.", show_default="data_check.png")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the held-out split, where no list says which it is.")] = 0,
    alphabet: Annotated[str | None, typer.Option(help="Of the model that is to read lines: a name such as en, or a dictionary.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of its input, 80 at a width of 320: longer texts are named.")] = None,
) -> None:
    """Count images and words, name every damaged line and file, and draw a contact sheet.

    Exits with status 1 where anything is damaged.

    Example:

      compress data check data/icdar2015 --format icdar2015

      compress data check data/words --format lines --alphabet en
    """
    from compress.data.check import check
    from compress.data.formats import from_options

    sheet = out or Path("data_check.png")
    report = check(from_options(data, root_folder), seed, sheet, alphabet, steps)
    typer.echo(str(report))
    if any(split.images for split in report.splits):
        typer.echo(f"Contact sheet: {sheet}")
    if report.problems:
        raise typer.Exit(1)


@app.command("convert")
def data_convert(
    source: Annotated[Path, typer.Argument(help="The folder of the data.")],
    source_format: Annotated[str, typer.Option("--from", metavar="FORMAT", help=FORMATS_HELP)],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="The same.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")],
    damaged: Annotated[str, typer.Option(help="refuse, or skip: leave out what cannot be read.")] = "refuse",
) -> None:
    """Write a data set in another format. What that cannot hold is refused, or said.

    Example:

      compress data convert data/totaltext --from totaltext --to paddleocr -o data/totaltext_paddle
    """
    from compress.data.convert import convert

    for line in convert(source, source_format, out, to, damaged):
        typer.echo(line)
    typer.echo(f"{to}: {out}")


@app.command("draw")
def data_draw(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    images: Annotated[int, typer.Option(min=2, max=100_000, help="How many to train on; some of them become validation.")] = 50,
    test: Annotated[int, typer.Option(min=0, max=100_000, help="How many for the test part.")] = 20,
    size: Annotated[
        int | None, typer.Option(min=16, max=2048, help="Pixels of their height and width; of lines, their height.", show_default="640; 48")
    ] = None,
    data: Annotated[str, typer.Option("--format", help=DRAWN_HELP)] = "icdar2015",
    fonts: Annotated[Path | None, typer.Option(help="Lines: a folder of fonts, used beside matplotlib's.")] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="Lines: a file with a word a line, instead of made-up words.")] = None,
    words: Annotated[int | None, typer.Option(min=1, max=4, help="Lines: the most words in one.", show_default="4")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Another seed gives other images.")] = 0,
) -> None:
    """Draw synthetic photographs of words, or lines of text, with their ground truth: to try the workbench on, or to train on.

    Examples:

      compress data draw photos --images 50

      compress data draw words --format lines --images 10000 --words 1 --fonts fonts --vocabulary words.txt
    """
    from compress.data.draw import draw_folder, draw_lines, lines_of_ones_own
    from compress.data.lines.convert import WRITERS
    from compress.errors import CompressError

    if data in WRITERS:
        source = lines_of_ones_own(train=images, test=test, height=size or 48, words=words or 4, fonts=fonts, vocabulary=vocabulary)
        told = draw_lines(out, data, source, ("train", "test") if test else ("train",), seed)
    elif fonts or vocabulary or words:
        raise CompressError(
            f"--fonts, --vocabulary and --words are of lines, and {data} holds photographs; leave them out, or say --format lines."
        )
    else:
        told = draw_folder(out, data, images=images, test=test, size=size or 640, seed=seed)
    for line in told:
        typer.echo(line)
    typer.echo(f"{data}: {out}")


@app.command("preview")
def data_preview(
    recipe: Recipe,
    override: Overrides = None,
    out: Annotated[Path, typer.Option(help="Where to draw.")] = Path("data_preview.png"),
    count: Annotated[int, typer.Option(min=1, max=64, help="How many samples.")] = 6,
) -> None:
    """Draw training samples as the first training stage sees them: augmented, with their target maps.

    Example:

      compress data preview recipes/db_mv3_prune0.6_distill.yml
    """
    from compress.data.check import preview_recipe

    preview_recipe(recipe, override or (), out, count)
    typer.echo(f"{count} training samples: {out}")
