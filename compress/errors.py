"""The one exception a user is meant to read."""

from __future__ import annotations

from compress.models.wording import suggestion

__all__ = ["CompressError", "suggestion"]


class CompressError(Exception):
    """One clear sentence: what is wrong, where, and what to do. The command line prints it and exits with status 1."""
