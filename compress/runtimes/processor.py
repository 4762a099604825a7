"""What the CPU is called, and how it multiplies integers."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

INFO = Path("/proc/cpuinfo")
# The kernel's names of instructions on which the speed of int8 depends, the best first.
INTEGERS = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "i8mm",
    "asimddp": "dot product",
}


@cache
def processor() -> str:
    """The CPU's model name and its best instructions for integers, such as `AMD EPYC, AVX2`: one name may stand for many generations."""
    return told(INFO.read_text()) if INFO.exists() else platform.processor() or platform.machine()


def told(info: str) -> str:
    """What :func:`processor` says of a text such as /proc/cpuinfo."""
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(info.splitlines()))}
    name = facts.get("model name") or platform.processor() or platform.machine()
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return ", ".join([name, *[title for flag, title in INTEGERS.items() if flag in flags][:1]])
