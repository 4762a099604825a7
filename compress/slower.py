"""Where integers do not pay: the one rule by which an int8 artefact is called slower than a float one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Timing(NamedTuple):
    """How long one artefact takes in one runtime.

    place: of the artefact in the caller's list. network: equal for those that may be compared, which have equal layers and input.
    precision: of the numbers, as the runtime names it. time: in a unit that is the same for all. exported: False for a checkpoint.
    """

    place: int
    network: Hashable
    runtime: str
    precision: str
    time: float
    exported: bool = True


def slower_in_int8(timings: Sequence[Timing]) -> list[tuple[Timing, Timing]]:
    """Every int8 timing that a float one of the same network in the same runtime outruns, with that float one.

    Of several float ones, exported files go before checkpoints, and of those the fastest is taken. A fake-quantized network is left out:
    it imitates int8 and is not meant to be fast.
    """
    found = []
    for mine in timings:
        alike = [other for other in timings if (other.network, other.runtime) == (mine.network, mine.runtime)]
        floats = [other for other in alike if "int8" not in other.precision]
        if is_int8(mine.precision) and floats:
            best = min(floats, key=lambda other: (not other.exported, other.time))
            found += [(mine, best)] if best.time < mine.time else []
    return found


def is_int8(precision: str) -> bool:
    """Whether a runtime computes in 8-bit integers, and does not only imitate them."""
    return "int8" in precision and "fake" not in precision
