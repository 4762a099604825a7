"""The ledger as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from compress.ledger import Row, caption, cells
from compress.report.terminal import output


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows to standard output, what they were measured on below."""
    head, body = cells(rows)
    table = Table(box=box.SIMPLE_HEAD)
    for name in head:
        table.add_column(name, justify="left" if name in ("stage", "experiment") else "right", no_wrap=True)
    for line in body:
        table.add_row(*line)
    console = output()
    console.print(table)
    console.print(caption(rows), markup=False)
