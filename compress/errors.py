"""The one exception a user is meant to read."""

from __future__ import annotations

from compress.models.wording import suggestion

__all__ = ["CompressError", "suggestion", "told_apart"]


class CompressError(Exception):
    """One clear sentence: what is wrong, where, and what to do. The command line prints it and exits with status 1."""


def told_apart(value: float, bound: float) -> str:
    """A number with three digits, or as many as it takes to tell it from `bound`: 0.021 beside 0.02, 1.0000001 beside 1."""
    texts = [(f"{value:.{digits}g}", f"{bound:.{digits}g}") for digits in range(3, 18)]
    return next((text for text, other in texts if text != other), texts[0][0])
