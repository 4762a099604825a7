"""The points of a sweep's space: all of a grid, or those that Ray draws at random, and what Ray and Optuna draw from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from compress.files import fingerprint
from compress.sweeps.settings import Choice, Range, Sweep
from compress.sweeps.trials import Point


def points(sweep: Sweep) -> list[Point]:
    """All points of a grid, or those that are drawn at random; the same for the same file."""
    if sweep.search == "grid":
        return [dict(zip(sweep.space, places, strict=True)) for places in itertools.product(*map(places_of, sweep.space.values()))]
    return list(drawn(sweep))


def places_of(choice: Choice) -> range:
    """The numbers that stand for the values of a list."""
    if isinstance(choice, Range):
        raise TypeError("a range has no places")
    return range(len(choice))


def drawn(sweep: Sweep) -> Iterator[Point]:
    """Different points at random, as many as make up the trials with all seeds; fewer where the space has no more."""
    import numpy as np

    generator, domains = np.random.RandomState(sweep.seed), {key: domain(choice) for key, choice in sweep.space.items()}
    seen: set[str] = set()
    wanted = max(1, (sweep.trials or 1) // max(1, len(sweep.seeds)))
    for _ in range(100 * wanted):
        point = {key: plain(found.sample(random_state=generator)) for key, found in domains.items()}
        if len(seen) < wanted and fingerprint(point) not in seen:
            seen.add(fingerprint(point))
            yield point


def domain(choice: Choice) -> Any:
    """What Ray draws from for one key: the place of a value in its list, or a number of a range."""
    from ray import tune

    if not isinstance(choice, Range):
        return tune.randint(0, len(choice)) if is_ordered(choice) else tune.choice(list(range(len(choice))))
    if choice.whole:
        low, high = int(choice.from_), int(choice.to) + 1  # Ray leaves the upper end out
        return tune.lograndint(low, high) if choice.log else tune.randint(low, high)
    return tune.loguniform(choice.from_, choice.to) if choice.log else tune.uniform(choice.from_, choice.to)


def is_ordered(choice: Sequence[Any]) -> bool:
    """Whether the values are rising numbers, of which a sampler may take neighbours to be alike."""
    numbers = [value for value in choice if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(choice) > 1 and numbers == sorted(numbers)


def plain(value: Any) -> float | int:
    """A number that JSON can hold."""
    return value.item() if hasattr(value, "item") else value
