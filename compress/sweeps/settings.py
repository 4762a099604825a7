"""A sweep file: typed YAML to objects. What no trial could run with is refused with its line, before any work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compress import recipe as recipes
from compress.errors import CompressError, suggestion
from compress.recipe import Recipe
from compress.recipe_file import Document, beside, from_here
from compress.tasks import TASKS
from compress.yaml_text import read_yaml

Objective = Literal["score", "latency_ms", "bytes", "macs"]
SAMPLERS = ("tpe", "nsga2")
MOST_TRIALS = 10_000


class Section(BaseModel):
    """What all sections of a sweep file have in common: nothing unknown, nothing that is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class Range(Section):
    """Numbers between two, both included. With whole numbers at both ends, whole numbers.

    log: whether each factor, instead of each difference, is as likely as any other. step: take `from`, `from + step` and so on alone.
    """

    from_: float | int = Field(alias="from")
    to: float | int
    log: bool = False
    step: Annotated[float | int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def check_ends(self) -> Range:
        """Refuse a range without anything in it, and what has no logarithm."""
        if self.from_ >= self.to:
            raise ValueError(f"nothing lies between {self.from_} and {self.to}; write the smaller number as `from`")
        if self.log and self.from_ <= 0:
            raise ValueError("log needs a `from` above 0")
        if self.log and self.step:
            raise ValueError("log and step do not go together; write a list")
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(end, int) for end in (self.from_, self.to))


# Of one key of the recipe: the values that are tried, or the numbers that they are taken from.
Choice = tuple[Any, ...] | Range


class Asha(Section):
    """Stop trials early that are worse than others were at the same epoch (Li et al. 2018, asynchronous successive halving).

    stage: whose validation scores count; the last one that trains, unless said. grace: epochs before the first is stopped.
    factor: one of so many goes on at each rung.
    """

    stage: str | None = None
    grace: int = Field(1, ge=1)
    factor: int = Field(2, ge=2, le=100)


class Stop(Section):
    """When a trial is stopped before its end."""

    asha: Asha | None = None


class Limits(Section):
    """What a recommended trial must keep to.

    max_drop: largest loss of the main metric against the first row of its experiment, in the metric's own unit, 0..1 for a percentage.
    max_latency_ms: largest median, in milliseconds. max_bytes: largest file of weights.
    """

    max_drop: float | None = Field(None, ge=0)
    max_latency_ms: float | None = Field(None, gt=0)
    max_bytes: int | None = Field(None, gt=0)


class Resources(Section):
    """What one trial takes: cores, and GPUs or a share of one."""

    cpus: int = Field(1, ge=1, le=1024)
    gpus: float = Field(0.0, ge=0, le=64)


class Sweep(Section):
    """A sweep file.

    recipe: its path, from the file's folder or the working folder. space: key of the recipe, with dots -> values or a :class:`Range`.
    objectives: what is wanted, the most wanted first: the main metric of the task, the median latency, the size, the multiply-accumulates.
    row: the row of a trial's ledger that counts, such as `files_int8/openvino`; the last one, unless said.
    runtime: runtime and precision that its latency counts in, such as `openvino int8`; the fastest one, unless said.
    search: `grid` tries all, `random` draws, `tpe` and `nsga2` are Optuna's samplers, which learn from the trials before.
    trials: how many; not for a grid. seeds: each point is tried with each seed; the recipe's own unless said. seed: of the search itself.
    parallel: trials at a time; as many as there are cores for, unless said. storage: the folder of trials and of the stages that they
    share, which all machines must see, or a URL that they all reach; the sweep's own folder unless said.
    """

    recipe: str = Field(min_length=1)
    space: dict[str, Any] = {}
    objectives: tuple[Objective, ...] = Field(("score",), min_length=1)
    row: str | None = None
    runtime: str | None = None
    limits: Limits = Limits()
    search: Literal["grid", "random", "tpe", "nsga2"] = "grid"
    trials: int | None = Field(None, ge=1, le=MOST_TRIALS)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = ()
    seed: int = Field(0, ge=0, lt=2**32)
    stop: Stop = Stop()
    parallel: int | None = Field(None, ge=1, le=1024)
    resources: Resources = Resources()
    storage: str | None = None

    @model_validator(mode="after")
    def check_search(self) -> Sweep:
        """Refuse keys that do not go together."""
        if self.search == "grid" and self.trials is not None:
            raise ValueError("search: grid tries every point; leave `trials` out, or take another search")
        if self.search != "grid" and self.trials is None:
            raise ValueError(f"search: {self.search} needs `trials`, a number")
        if self.search in SAMPLERS and len(self.seeds) > 1:
            raise ValueError(f"search: {self.search} takes one seed; sweep several seeds by a grid")
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.objectives)) < len(self.objectives):
            raise ValueError("seeds and objectives are named once each")
        return self


def read(path: Path, overrides: tuple[str, ...] = ()) -> Sweep:
    """The sweep at `path`, whose recipe takes `overrides`, `key=value`, for every trial.

    `space` is left as key -> :data:`Choice`. Raises CompressError, with the line, for what is wrong in the file, for keys that the recipe
    does not have or does not take any value of, and for a stage that is not there.
    """
    if not path.is_file():
        raise CompressError(f"There is no sweep at {path}; give a file such as those in recipes/sweeps/.")
    document = Document({})
    values = read_yaml(path, document.places)
    if not isinstance(values, dict) or "recipe" not in values:
        raise CompressError(f"{path}: a sweep is a mapping with the keys recipe, space and objectives.")
    sweep = recipes.section(Sweep, values, (), document)
    space = {key: read_choice(key, written, document) for key, written in sweep.space.items()}
    if not space and len(sweep.seeds) < 2:
        raise CompressError(f"{document.where(('space',))}: `space` is empty, and there are no `seeds`; say what is to be varied.")
    found = from_here(beside(sweep.recipe, path.resolve()))
    sweep = sweep.model_copy(update={"space": space, "recipe": found})
    check_against_recipe(sweep, overrides, document)
    return sweep


def read_choice(key: str, written: Any, document: Document) -> Choice:
    """One entry of `space`. A range with a step is the list of its values."""
    place = ("space", key)
    if isinstance(written, dict):
        span = recipes.section(Range, written, place, document)
        return tuple(stepped(span)) if span.step else span
    if not isinstance(written, list) or not written:
        raise CompressError(f"{document.where(place)}: space.{key}: give a list of values, or {{from: 0.3, to: 0.7}}, not {written!r}.")
    return tuple(written)


def stepped(span: Range) -> list[float | int]:
    """The values of a range with a step."""
    step = span.step or 1
    count = math.floor((span.to - span.from_) / step + 1e-9) + 1
    if count > MOST_TRIALS:
        raise CompressError(f"space: from {span.from_} to {span.to} are {count} steps of {step}; take fewer.")
    return [value if span.whole and isinstance(step, int) else round(value, 12) for value in (span.from_ + i * step for i in range(count))]


def check_against_recipe(sweep: Sweep, overrides: tuple[str, ...], document: Document) -> None:
    """Refuse what does not fit the recipe."""
    base = recipes.load_named(Path(sweep.recipe), overrides)
    for key, choice in sweep.space.items():
        if isinstance(choice, Range) and sweep.search == "grid":
            raise CompressError(f"{document.where(('space', key))}: space.{key}: a grid needs a list, or a `step`.")
        if key == "seed":
            raise CompressError(f"{document.where(('space', key))}: write seeds as `seeds: [0, 1, 2]`, not in the space.")
        check_key(sweep, overrides, key, choice, document)
    check_limits(sweep, base, document)
    asha = sweep.stop.asha
    if asha:
        trained = {stage.name: stage.schedule() for stage in base.stages if stage.schedule()}
        schedule = trained.get(asha.stage or next(reversed(trained), ""))
        place = document.where(("stop", "asha", "stage"))
        if schedule is None:
            raise CompressError(f"{place}: stop.asha.stage: no stage '{asha.stage}' trains{suggestion(str(asha.stage), trained)}")
        if asha.grace >= schedule.epochs:
            raise CompressError(f"{place}: stop.asha: the stage trains {schedule.epochs} epoch(s), so no trial would be stopped early.")


def check_key(sweep: Sweep, overrides: tuple[str, ...], key: str, choice: Choice, document: Document) -> None:
    """Refuse a key none of whose values the recipe takes."""
    tried = (choice.from_, choice.to) if isinstance(choice, Range) else choice
    faults = []
    for value in tried:
        try:
            recipes.load_named(Path(sweep.recipe), (*overrides, override(key, value)))
            return
        except CompressError as error:
            faults.append(error)
    raise CompressError(f"{document.where(('space', key))}: space.{key}: {faults[0]}")


def check_limits(sweep: Sweep, base: Recipe, document: Document) -> None:
    """Refuse limits that every trial keeps or none can, and objectives that no trial has."""
    from compress.outside import build
    from compress.pipeline import MODEL

    if "macs" in sweep.objectives and base.model["name"] == MODEL["name"]:
        told = "multiply-accumulates of a pipeline are not counted; take latency_ms or bytes"
        raise CompressError(f"{document.where(('objectives',))}: objectives: {told}.")
    metric = TASKS[build(base.model).task].metric
    drop = sweep.limits.max_drop
    if drop is not None and metric.percent and drop >= 1:
        told = f"{metric.name} is a value in 0..1, so write {drop:g} % as {drop / 100:g}"
        raise CompressError(f"{document.where(('limits', 'max_drop'))}: limits.max_drop: {told}.")
    names, counted = [stage.name for stage in base.stages], (sweep.row or "").partition("/")[0]
    if counted and counted not in names:
        raise CompressError(f"{document.where(('row',))}: row: the recipe has no stage '{counted}'{suggestion(counted, names)}")


def override(key: str, value: Any) -> str:
    """`key=value` as a recipe is overridden with it."""
    import json

    return f"{key}={json.dumps(value)}"


def asha_stage(sweep: Sweep, base: Recipe) -> str:
    """The stage by whose validation scores trials are stopped."""
    asha = sweep.stop.asha
    return (asha.stage if asha else None) or [stage.name for stage in base.stages if stage.schedule()][-1]
