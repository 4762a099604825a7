"""The one exception a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CompressError(Exception):
    """One clear sentence: what is wrong, where, and what to do. The command line prints it and exits with status 1."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest known word, else the known words. Made to end a sentence about an unknown word."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(known)}."
