"""What the machine computes fast: precision, no subnormal floats, and memory that is kept instead of given back at every step."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["no", "bf16"]  # accelerate's names
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def native_bf16(device: torch.device) -> bool:
    """Whether bf16 convolutions run natively on `device` and are faster; where they are emulated they are several times slower than fp32.

    AVX-512 BF16 without AMX makes recognisers of dense convolutions 1.7 times as fast and small detectors a quarter slower, so it is not
    taken unasked.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def mixed_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """accelerate's name for the precision to train in."""
    return "bf16" if wanted == "bf16" or (wanted == "auto" and native_bf16(device)) else "no"


@functools.cache
def keep_freed_memory() -> bool:
    """Ask glibc to reuse freed blocks of any size. Returns whether it agreed.

    By default every activation map is mapped, zeroed page by page and unmapped at each step; reusing them made training steps on CPU
    1.4 to 1.6 times faster.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, value) for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_ARENA_MAX, 1)))


@contextmanager
def subnormals_as_zeros() -> Iterator[None]:
    """Until the block ends, floats too small to be normal ones are zeros to the processor, in this thread and in those that it starts.

    The gradients and averages of dead channels fade into them; see :func:`compress.checkpoint.without_subnormals`.
    """
    before = float(torch.tensor(1e-40) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
