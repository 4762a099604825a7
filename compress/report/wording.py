"""Figures as people read them."""

from __future__ import annotations

MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"  # between a figure and its unit


def megabytes(size: int) -> str:
    """Bytes as MB: 2411744 -> `2.41 MB`."""
    return f"{size / 1e6:.{2 if size >= 1e6 else 3}f}{SPACE}MB"


def milliseconds(median: float) -> str:
    """A median in ms: `12.1 ms`."""
    return f"{median:.1f}{SPACE}ms"


def percent(share: float) -> str:
    """A share, 0..1: `92.85 %`."""
    return f"{100 * share:.2f}{SPACE}%"


def billions(count: int) -> str:
    """Multiply-accumulates: `0.612 G`."""
    return f"{count / 1e9:.3f}{SPACE}G"


def change(new: float, old: float) -> str:
    """By how much of `old`: `-81.8 %` with a longer minus; nothing where there is nothing to compare with."""
    return signed(100 * (new - old) / old, f"{SPACE}%", 1) if old else ""


def points(new: float, old: float) -> str:
    """Difference of two shares, 0..1, in points: `-3.39 points` with a longer minus."""
    return signed(100 * (new - old), f"{SPACE}points", 2)


def signed(value: float, unit: str, digits: int) -> str:
    """`+1.2 %`, with a minus as long as the plus."""
    return f"{value:+.{digits}f}{unit}".replace("-", MINUS)
