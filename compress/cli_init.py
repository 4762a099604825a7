"""`compress init`: a recipe for one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Your images and their labels, in any format of docs/data.md.")],
    task: Annotated[
        str | None, typer.Option(help="detection, recognition or classification.", show_default="what the data are for")
    ] = None,
    start: Annotated[
        str, typer.Option("--from", metavar="CHECKPOINT", help="What training starts from: `packaged`, `scratch`, or a checkpoint folder.")
    ] = "packaged",
    latency: Annotated[
        str | None,
        typer.Option(
            metavar="MSms@HEIGHTxWIDTH", help="Prune until a call takes no longer, such as 10ms@640x640.", show_default="no limit"
        ),
    ] = None,
    runtime: Annotated[
        str, typer.Option(metavar="NAME[:PRECISION]", help="What the files are for: openvino or onnxruntime, :int8 or :fp32.")
    ] = ("openvino:int8"),
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the runtime.", show_default="all")] = None,
    out: Annotated[Path, typer.Option("--out", help="The recipe to write.")] = Path("recipe.yml"),
) -> None:
    """Look at your data, and write a short recipe that trains on them and makes the model small.

    The format is found by looking. With a latency, the model is timed here as it is, and pruned as far as it goes, which says at once
    whether the latency can be met. Nothing is overwritten.

    Examples:

      compress init --data photos

      compress init --data photos --latency 10ms@640x640 --runtime openvino:int8 --out small.yml

      compress init --data words --task recognition --from scratch
    """
    from compress.init import init as write

    for line in write(data, out, task=task, start=start, latency=latency, runtime=runtime, threads=threads):
        typer.echo(line)
