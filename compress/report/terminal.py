"""Where tables are printed."""

from __future__ import annotations

from rich.console import Console


def output() -> Console:
    """Standard output; where it is no terminal, wide enough not to fold a table."""
    return Console(highlight=False, width=None if Console().is_terminal else 200)
