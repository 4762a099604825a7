"""What a task is: the kind of answer that a model gives about an image, and everything that depends on that kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from compress.errors import CompressError, suggestion
from compress.models.contract import Algorithm, Input, Sample
from compress.models.registry import checked

Scores = dict[str, float]


class Evaluate(BaseModel):
    """The `evaluate` section of a recipe: how images are shown to the model, and how its outputs are decoded.

    A task adds its own fields. Every other key is a field of the algorithm's `settings`, whose names and ranges the algorithm knows.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    # Own fields that say how answers are judged, and not how images are shown.
    judges: ClassVar[frozenset[str]] = frozenset()

    def settings(self, algorithm: Algorithm) -> Any:
        """The algorithm's decoding settings with this section's values.

        Raises CompressError for a name or a value that the algorithm refuses.
        """
        given = self.model_extra or {}
        known = {field.name for field in fields(algorithm.settings)}
        for name in given:
            if name not in known:
                raise CompressError(f"evaluate.{name} is not known{suggestion(name, known | set(type(self).model_fields))}")
        try:
            return checked(algorithm.settings, given, "evaluate")()
        except (TypeError, ValueError) as error:
            raise CompressError(str(error) if str(error).startswith("evaluate.") else f"evaluate.{error}") from None

    def reported(self, algorithm: Algorithm) -> dict[str, Any]:
        """All that a score depends on, for a table: this section with every default filled in."""
        own = self.model_dump(mode="json", include=set(type(self).model_fields))
        return {**own, **asdict(self.settings(algorithm))}

    def how_shown(self) -> dict[str, Any]:
        """How images are shown to the model: the section's own fields, as values that JSON holds."""
        return self.model_dump(mode="json", include=set(type(self).model_fields) - self.judges)

    def with_tuned(self, tuned: Mapping[str, Any]) -> Evaluate:
        """The same section with the settings that were tuned, `compress.records.Tuned`, if any were.

        Raises CompressError where images were shown otherwise then: another size of images wants other settings.
        """
        if not tuned:
            return self
        then, now = tuned["shown"], self.how_shown()
        if then != now:
            before, here = (", ".join(f"{name} {values[name]}" for name in now if name in values) for values in (then, now))
            told = f"The model's settings were tuned with {before}, and images are shown with {here} here"
            raise CompressError(f"{told}; tune them again with `compress eval --tune`, or delete its tuned.json.")
        return self.with_settings(tuned["settings"])

    def with_settings(self, values: Mapping[str, Any]) -> Evaluate:
        """The same section with some decoding settings replaced."""
        return type(self)(**{**self.model_dump(), **values})


@dataclass(frozen=True)
class Metric:
    """One figure by which answers are judged.

    name: its key in `Scores`. heading: of its column in a table. percent: whether it is in 0..1 and shown as a percentage.
    higher_is_better: its direction.
    """

    name: str
    heading: str
    percent: bool = True
    higher_is_better: bool = True

    @property
    def label(self) -> str:
        """The heading without its unit: `Hmean`."""
        return self.heading.removesuffix(" %")

    def shown(self, value: float) -> str:
        """The value as a table has it, two digits after the point."""
        return f"{100 * value:.2f}" if self.percent else f"{value:.2f}"

    def moved(self, difference: float) -> str:
        """A difference of two values as a table has it, with its sign."""
        return f"{100 * difference:+.2f}" if self.percent else f"{difference:+.2f}"

    def gain(self, before: float, after: float) -> float:
        """How much better `after` is than `before`; negative for worse."""
        return after - before if self.higher_is_better else before - after


@dataclass(frozen=True)
class Shape:
    """Something that an answer or a ground truth says about an image, for a page to show.

    outline: (n, 2) x, y pixel coordinates in the image; None for what is said about the image as a whole. caption: in words, may be empty.
    counts: False for ground truth that is not scored.
    """

    outline: np.ndarray | None = None
    caption: str = ""
    counts: bool = True


@dataclass(frozen=True)
class Task:
    """Everything that depends on what kind of answer a model gives. Nothing above `compress.tasks` names one.

    name: as `Algorithm.task` and a row of the ledger have it.
    metrics: the columns of a table, in order. main: the name of the one that best epochs, budgets and comparisons go by.
    evaluate, augment: the classes of the recipe's sections.
    crop: height and width, in pixels, of training images where a stage says nothing else. square: whether they must be equal.
    begun_with: the `model` section of a small network to start with; empty where the task trains none.
    at_size: `(height, width) -> fields of `evaluate``: those by which images are shown at that size.
    size: `(evaluate, input) -> (height, width)`: of training images on the scale at which images are evaluated.
    view: `(sample, augment, (height, width), input, rng) -> sample`: a random training view of exactly that size.
    shown: `(image, evaluate, input) -> image`: (H, W, 3) uint8 RGB, resized as the network is shown it at inference.
    resized: `(sample, evaluate, input) -> sample`: the same of an image with its ground truth.
    judge: `([(answer, truth)], evaluate) -> scores`: at least all metrics; more may follow, such as `accuracy <label>` for each class:
        what begins with the name of a metric and a space is that metric of a part.
    counts: `truths -> {what: how many}`, for `compress data check`.
    record: one answer as values that JSON holds. told: one answer in a few words.
    drawn: `(image, answer) -> image`, with the answer drawn on it. outlined: `(image, truth) -> image`, with the ground truth.
    carries_maps: whether `view` takes the maps of a sample along.
    corrected: `(truth, answer) -> truth`: the ground truth of a training image with what a good model finds taken into account; None where
        there is no such thing.
    joined: `(sample, another, augment, (height, width), rng) -> sample`: a training image made of several, before `view`; `another()` is
        one by chance. None where there is no such thing.
    shapes: `answer -> [shape]`, what a page shows on the image beside `told`. true_shapes: `truth -> [shape]`.
    """

    name: str
    metrics: tuple[Metric, ...]
    main: str
    evaluate: type[Evaluate]
    augment: type[BaseModel]
    crop: tuple[int, int]
    size: Callable[[Any, Input], tuple[int, int]]
    view: Callable[[Sample, Any, tuple[int, int], Input, np.random.Generator], Sample]
    shown: Callable[[np.ndarray, Any, Input], np.ndarray]
    resized: Callable[[Sample, Any, Input], Sample]
    judge: Callable[[Sequence[tuple[Any, Any]], Any], Scores]
    counts: Callable[[Iterable[Any]], dict[str, int]]
    record: Callable[[Any], dict[str, Any]]
    told: Callable[[Any], str]
    drawn: Callable[[np.ndarray, Any], np.ndarray]
    outlined: Callable[[np.ndarray, Any], np.ndarray]
    shapes: Callable[[Any], list[Shape]]
    true_shapes: Callable[[Any], list[Shape]]
    carries_maps: bool = False
    corrected: Callable[[Any, Any], Any] | None = None
    joined: Callable[[Sample, Callable[[], Sample], Any, tuple[int, int], np.random.Generator], Sample] | None = None
    square: bool = False
    begun_with: Mapping[str, Any] = field(default_factory=dict)
    at_size: Callable[[int, int], dict[str, Any]] = lambda _height, _width: {}

    @property
    def metric(self) -> Metric:
        """The main metric."""
        return next(metric for metric in self.metrics if metric.name == self.main)

    def gain(self, before: Mapping[str, float], after: Mapping[str, float]) -> float:
        """How much better the main metric is in `after` than in `before`; negative for worse."""
        return self.metric.gain(before[self.main], after[self.main])
