"""Where tables are printed."""

from __future__ import annotations

from rich.console import Console


def output(least: int = 0) -> Console:
    """Standard output, `least` characters wide or more; where it is no terminal, wide enough not to fold a table."""
    here = Console()
    return Console(highlight=False, width=max(here.width if here.is_terminal else 200, least))
