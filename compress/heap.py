"""Memory that is free, but that the C library keeps."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


@cache
def trimmer() -> Any:
    """glibc's `malloc_trim`, or None where another C library is used."""
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # TypeError: Windows
        return None


def give_back() -> None:
    """Give memory that is free back to the system.

    Buffers of many sizes leave holes: after 160 images of as many sizes a process of 1.2 GB was 0.1 GB larger without it.
    """
    if trim := trimmer():
        trim(0)
