"""A recipe: typed YAML to objects. Unknown keys, wrong types and impossible values are refused with their line, before any work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError

from compress import recipe_file
from compress.data.formats import FORMATS, DataConfig
from compress.errors import CompressError, suggestion
from compress.models.contract import Algorithm
from compress.outside import allow_own, build
from compress.recipe_file import Document, Place
from compress.stages import KINDS, Stage
from compress.stages.export import HOLD_INT8
from compress.tasks import TASKS
from compress.tasks.task import Evaluate
from compress.training.trackers import TrackerName

RuntimeName = Literal["torch", "torch.compile", "onnxruntime", "openvino"]


class Latency(BaseModel):
    """How latency is measured.

    input: batch, channels, height and width, in pixels. threads: per runtime. runtimes: which ones. rounds: timed calls of each,
    in turn, after a warm-up; the median and the 90th percentile are reported.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: tuple[int, int, int, int] = (1, 3, 736, 1280)
    threads: int = Field(2, ge=1, le=256)
    runtimes: tuple[RuntimeName, ...] = ("torch", "onnxruntime", "openvino")
    rounds: int = Field(20, ge=3, le=10000)


class Recipe(BaseModel):
    """A resolved recipe. `stages` is in order; every stage has a name, and `from` where it does not start from the one before.

    trackers: where training is logged besides `metrics.jsonl`; no outcome depends on it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    seed: int = Field(0, ge=0, lt=2**32)
    model: dict[str, Any]
    data: DataConfig
    augment: SerializeAsAny[BaseModel]
    evaluate: SerializeAsAny[Evaluate]
    latency: Latency = Latency()
    trackers: tuple[TrackerName, ...] = ()
    stages: tuple[SerializeAsAny[Stage], ...]

    def stage(self, name: str) -> Stage:
        """The stage called `name`."""
        return next(stage for stage in self.stages if stage.name == name)

    def parent(self, stage: Stage) -> str | None:
        """Name of the stage that `stage` starts from; None for one that starts from fresh weights."""
        if stage.from_ is not None:
            return stage.from_
        before = [other.name for other in self.stages[: self.stages.index(stage)] if other.gives_model]
        return before[-1] if before else None

    def training(self, stage: Stage) -> tuple[DataConfig, BaseModel]:
        """The data that `stage` trains on and their augmentation: the recipe's, or its own by the defaults of their format."""
        own = getattr(stage, "data", None)
        return (own, own.default_augment()) if own else (self.data, self.augment)

    def dump(self) -> str:
        """The recipe as YAML in the shape that people write, every default filled in. Reading it back gives the same recipe."""
        values = self.model_dump(mode="json", by_alias=True, exclude={"name", "stages"})
        stages = [{stage.kind: stage.model_dump(mode="json", by_alias=True, exclude_none=True)} for stage in self.stages]
        return yaml.safe_dump({**values, "stages": stages}, sort_keys=False, width=120, default_flow_style=None)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe at `path` with `key=value` overrides.

    Raises CompressError, naming the line, for anything that a run would stumble over and that needs no data to see.
    """
    path = Path(path)
    return resolve(recipe_file.read(path, overrides), experiment_name(path))


def load_named(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """:func:`load` of a recipe that the user has asked for, which so allows the module that its model is built by."""
    path = Path(path)
    document = recipe_file.read(path, overrides)
    allow_own(document.values.get("model"))
    return resolve(document, experiment_name(path))


def experiment_name(path: Path) -> str:
    """`recipes/icdar2015/x.yml` -> `icdar2015/x`; outside a folder called recipes, the file's own name."""
    parts = path.resolve().with_suffix("").parts
    if "recipes" in parts[:-1]:
        return "/".join(parts[len(parts) - parts[::-1].index("recipes") :])
    return parts[-1]


def resolve(document: Document, name: str) -> Recipe:
    """Plain values to a checked recipe."""
    values = dict(document.values)
    check_keys(Recipe, dict.fromkeys(values), (), document, hidden={"name"})
    for key in ("model", "data"):
        if not isinstance(values.get(key), dict):
            raise CompressError(f"{document.where((key,))}: the recipe needs a `{key}` section.")
    algorithm = check_model(values["model"], document)
    task = TASKS[algorithm.task]
    data = section(data_format(values["data"], ("data",), document), values["data"], ("data",), document)
    if data.task != task.name:
        place = document.where(("data", "format"))
        raise CompressError(f"{place}: data of the format {data.format} are for {data.task}, but the model is for {task.name}.")
    augment = {**data.default_augment().model_dump(), **(values.get("augment") or {})}
    recipe = Recipe(
        name=name,
        seed=number(values.get("seed", 0), document),
        model=values["model"],
        data=data,
        augment=section(task.augment, augment, ("augment",), document),
        evaluate=check_evaluate(values.get("evaluate") or {}, algorithm, document),
        latency=section(Latency, values.get("latency") or {}, ("latency",), document),
        trackers=tracker_names(values.get("trackers") or [], document),
        stages=tuple(read_stage(keys, document) for keys in values["stages"].values()),
    )
    check_parents(recipe, document)
    return recipe


def data_format(values: dict[str, Any], place: Place, document: Document) -> type[BaseModel]:
    """The class of the data format that a `data` section names."""
    name = values.get("format")
    if name not in FORMATS:
        raise CompressError(f"{document.where((*place, 'format'))}: there is no data format '{name}'{suggestion(str(name), FORMATS)}")
    return FORMATS[name]


def number(value: Any, document: Document) -> int:
    """The seed."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise CompressError(f"{document.where(('seed',))}: seed must be a whole number from 0 to 4294967295, not {value!r}.")
    return value


def tracker_names(value: Any, document: Document) -> tuple[TrackerName, ...]:
    """The trackers."""
    place, known = document.where(("trackers",)), get_args(TrackerName)
    if not isinstance(value, list):
        raise CompressError(f"{place}: trackers must be a list, such as [{known[0]}], not {value!r}.")
    for name in value:
        if name not in known:
            raise CompressError(f"{place}: there is no tracker '{name}'{suggestion(str(name), known)}")
    return tuple(dict.fromkeys(value))


def check_model(config: dict[str, Any], document: Document) -> Algorithm:
    """The algorithm. Refuses a model that the registry cannot build."""
    try:
        algorithm = build(config)
    except ValueError as error:
        raise CompressError(f"{document.where(('model',))}: {error}") from None
    if algorithm.task not in TASKS:
        raise CompressError(f"{document.where(('model',))}: its task '{algorithm.task}' is not known{suggestion(algorithm.task, TASKS)}")
    return algorithm


def check_evaluate(values: dict[str, Any], algorithm: Algorithm, document: Document) -> Evaluate:
    """The `evaluate` section. Refuses settings that the algorithm does not have."""
    evaluate = section(TASKS[algorithm.task].evaluate, values, ("evaluate",), document)
    try:
        evaluate.settings(algorithm)
    except CompressError as error:
        raise CompressError(f"{document.where(('evaluate',))}: {error}") from None
    return evaluate


def read_stage(keys: dict[str, Any], document: Document) -> Stage:
    """One stage from its keys, `kind` among them."""
    place = ("stages", keys["name"])
    kind = keys["kind"]
    if kind not in KINDS:
        raise CompressError(f"{document.where((*place, 'kind'))}: there is no stage of kind '{kind}'{suggestion(kind, KINDS)}")
    known = KINDS[kind].model_fields
    if "data" in known and isinstance(keys.get("data"), dict):  # checked by its format first, whose complaints name keys and lines
        section(data_format(keys["data"], (*place, "data"), document), keys["data"], (*place, "data"), document)
    return section(KINDS[kind], {key: value for key, value in keys.items() if key != "kind"}, place, document)


def check_parents(recipe: Recipe, document: Document) -> None:
    """Every stage starts from an earlier one."""
    earlier: list[str] = []
    for stage in recipe.stages:
        place = document.where(("stages", stage.name, "from"))
        if stage.from_ is not None and stage.from_ not in earlier:
            what = f"'{stage.name}' starts from '{stage.from_}', which is no earlier stage that gives a model"
            raise CompressError(f"{place}: {what}{suggestion(stage.from_, earlier)}")
        if stage.needs_parent and not earlier:
            raise CompressError(
                f"{place}: '{stage.name}' ({stage.kind}) needs a model to start from; put a train or a load stage before it."
            )
        check_formats(recipe, stage, document)
        if stage.gives_model:
            earlier.append(stage.name)


def check_formats(recipe: Recipe, stage: Stage, document: Document) -> None:
    """An int8 model goes into formats that can hold one."""
    parent = recipe.parent(stage)
    if parent is None or recipe.stage(parent).kind != "quantize":
        return
    for name in getattr(stage, "formats", ()):
        if name not in HOLD_INT8:
            place = document.where(("stages", stage.name, "formats"))
            raise CompressError(f"{place}: '{parent}' is quantized and {name} cannot hold int8; use {' or '.join(HOLD_INT8)}.")


def section(kind: type[BaseModel], values: Any, place: Place, document: Document) -> Any:
    """Validate one section; the first error becomes one sentence with its line."""
    if not isinstance(values, dict):
        raise CompressError(f"{document.where(place)}: `{'.'.join(place)}` must be a mapping.")
    check_keys(kind, values, place, document)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = (*place, *keys_to(values, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        told = f"{'.'.join(path)}: {message[0].lower() + message[1:]}, not {first['input']!r}."
        raise CompressError(f"{document.where(path)}: {told}") from None


def check_keys(kind: type[BaseModel], values: dict[str, Any], place: Place, document: Document, hidden: set[str] = frozenset()) -> None:
    """Refuse keys that no field of `kind` has, here and in the sections below, with a suggestion."""
    if kind.model_config.get("extra") == "allow":
        return
    known = {field.alias or name: field for name, field in kind.model_fields.items() if name not in hidden}
    for key, value in values.items():
        path = (*place, key)
        if key not in known:
            raise CompressError(f"{document.where(path)}: unknown key '{'.'.join(path)}'{suggestion(key, known)}")
        below = section_below(known[key].annotation, value)
        if below:
            check_keys(below, value, path, document)


def section_below(annotation: Any, value: Any) -> type[BaseModel] | None:
    """The class of the mapping with known keys that a field takes, where `value` is one; of several the one of its `format`."""
    kinds = [kind for kind in unfolded(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    if not isinstance(value, dict) or not kinds:
        return None
    if len(kinds) == 1:
        return kinds[0]
    return next((kind for kind in kinds if value.get("format") in get_args(kind.model_fields["format"].annotation)), None)


def unfolded(annotation: Any) -> Iterator[Any]:
    """The annotation, and what it is a union of."""
    yield annotation
    for part in get_args(annotation):
        yield from unfolded(part)


def keys_to(values: Any, loc: Sequence[int | str]) -> Place:
    """Where a validation error is, in keys as they are written: without the formats that pydantic has chosen classes by."""
    path: list[str] = []
    for part in loc:
        if isinstance(values, dict) and part not in values and part == values.get("format"):
            continue
        path.append(str(part))
        values = values.get(part) if isinstance(values, dict) else None
    return tuple(path)


def fingerprint(value: Any) -> str:
    """sha256, in hexadecimal, of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
