"""The ledger, and a benchmark, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from compress.ledger import Row, caption, shares_text, table
from compress.report.terminal import output

WIDEST = 10_000  # characters of a table


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows to standard output, what they were measured on below."""
    head, body = table(rows)
    printed = Table(box=box.SIMPLE_HEAD)
    for name in head:
        printed.add_column(escape(name), justify="left" if name in ("stage", "experiment") else "right", no_wrap=True)
    for line in body:
        printed.add_row(*map(escape, line))
    # A figure that is cut off is another figure: what is wider than the terminal goes on in its next line.
    output(output(WIDEST).measure(printed).maximum).print(printed)
    output().print(caption(rows), markup=False)


def print_benchmark(found: dict[str, Any]) -> None:
    """Print what :func:`compress.benchmark.benchmark` returned to standard output."""
    printed = Table(box=box.SIMPLE_HEAD)
    printed.add_column("artefact", overflow="fold")
    printed.add_column("runtime")
    for name in ("threads", "median ms", "p90 ms", "ratio", "integer convs", "weights kB"):
        printed.add_column(name, justify="right")
    for row in found["results"]:
        integers = row["integers"]
        printed.add_row(
            escape(row["artefact"]),
            f"{row['runtime']} {row['precision']}",
            str(row["threads"]),
            f"{row['median']:.2f}",
            f"{row['p90']:.2f}",
            f"{row['ratio']:.2f}",
            f"{integers['integer_convs']} of {integers['convs']}" if integers else "",
            ", ".join(f"{size / 1e3:.1f} {kind}" for kind, size in integers["weight_bytes"].items()) if integers else "",
        )
    console = output()
    console.print(printed)
    shape = "x".join(map(str, found["input"]))
    what = f"input {shape}, {found['rounds']} rounds" if shape else f"{found['rounds']} images, from pixels to answer,"
    parts = [f"{row['artefact']}: {shares_text(row['shares'])}" for row in found["results"] if "shares" in row]
    lines = [f"{what} in turn; ratio: to the first, median over the rounds", f"on {found['cpu']}", *parts]
    console.print("\n".join([*lines, "", *found["remarks"]]), markup=False, soft_wrap=True)
