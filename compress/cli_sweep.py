"""`compress sweep`: many runs of one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli_options import Device, Overrides, named


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP", callback=named, help="A sweep: its file, or a name such as sweeps/ratios.")],
    override: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder.", show_default="experiments/<sweep>")] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster: host:port, or auto.", show_default="the cores of this machine")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run the trials again that failed.")] = False,
    time_again: Annotated[bool, typer.Option("--time-again", help="Take all latencies anew.")] = False,
    device: Device = "auto",
) -> None:
    """Run a recipe many times with other values, and find the best: by a grid, at random, or by a sampler that learns.

    Trials share finished stages. One that fails is a row that says why. The same command after an interruption goes on.

    Examples:

      compress sweep recipes/sweeps/ratios.yml

      compress sweep recipes/sweeps/latency_budget.yml -o data.root=data/icdar2015 -o data.format=icdar2015

      compress sweep recipes/sweeps/seeds.yml --address 10.0.0.1:6379
    """
    from compress import sweep as work
    from compress.sweeps.results import markdown

    job, trials, path = work.sweep(file, override or (), out=out, address=address, device=device, retry=retry, time_again=time_again)
    typer.echo(markdown(job.sweep, trials))
    typer.echo(f"Recommended: {path}" if path else "No trial keeps to the limits.")
    typer.echo(f"sweep.jsonl, table.md and table.csv are in {job.folder}")
