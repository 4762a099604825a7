"""A recipe: typed YAML to objects. Unknown keys, wrong types and impossible values are refused with their line, before any work."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, SerializeAsAny, ValidationError

from compress import recipe_file
from compress.data.data_format import DataFormat
from compress.data.formats import FORMATS, DataConfig
from compress.data.lines.alphabets import from_checkpoint, from_file, from_texts, split_names
from compress.errors import CompressError, suggestion
from compress.exporters.formats import HOLD_INT8
from compress.models.contract import Algorithm
from compress.models.registry import check_parts
from compress.outside import allow_own, build
from compress.recipe_file import Document
from compress.run_settings import RunSettings
from compress.runtimes.settings import Latency
from compress.stages import KINDS, Stage
from compress.tasks import TASKS
from compress.tasks.task import Evaluate, Task
from compress.training.trackers import TrackerName
from compress.yaml_text import Place

Value = TypeVar("Value", bound=BaseModel)
# Keys of a stage that hold a value of the main metric, or a difference between two.
SCORES = ("max_drop", "min_score")


class Recipe(RunSettings):
    """A resolved recipe. `stages` is in order; every stage has a name, and `from` where it does not start from the one before."""

    name: str
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
        own = stage.own_data()
        return (own, own.default_augment()) if own else (self.data, self.augment)

    def last_model(self) -> str:
        """Name of the last stage that gives a model."""
        return [stage.name for stage in self.stages if stage.gives_model][-1]

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


def changed(data: DataConfig, evaluate: Evaluate, algorithm: Algorithm, overrides: Sequence[str]) -> tuple[DataConfig, Evaluate]:
    """Data and an `evaluate` section that come from no recipe, with `key=value` overrides of the two.

    Raises CompressError for overrides of anything else, and for values that a recipe could not have.
    """
    document = Document(
        {"data": data.model_dump(mode="json", by_alias=True), "evaluate": evaluate.model_dump(mode="json", by_alias=True), "stages": {}}
    )
    for override in overrides:
        if override.partition(".")[0] not in ("data", "evaluate"):
            raise CompressError(f"-o {override}: beside --data, `data` and `evaluate` alone can be changed: -o evaluate.short_side=480")
        recipe_file.apply_override(document, override)
    values = document.values
    kind = data_format(values["data"], ("data",), document)
    return section(kind, values["data"], ("data",), document), check_evaluate(values["evaluate"], algorithm, document)


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
    seed = number(values.get("seed", 0), document)
    model = with_alphabet(values["model"], values["data"], seed, document)
    algorithm = check_model(model, document)
    task = TASKS[algorithm.task]
    data = read_data(values["data"], ("data",), task, document)
    recipe = Recipe(
        name=name,
        seed=seed,
        model=model,
        data=data,
        augment=section(task.augment, laid_over(data.default_augment().model_dump(), "augment", document), ("augment",), document),
        evaluate=check_evaluate(laid_over({}, "evaluate", document), algorithm, document),
        latency=read_latency(algorithm, document),
        trackers=tracker_names(values.get("trackers") or [], document),
        stages=tuple(read_stage(keys, task, document) for keys in values["stages"].values()),
    )
    check_parents(recipe, document)
    check_latencies(recipe, document)
    check_scores(recipe, task, document)
    return recipe


def laid_over(defaults: dict[str, Any], key: str, document: Document) -> dict[str, Any]:
    """The section `key` with `defaults` for what it does not say."""
    written = document.values.get(key)
    if written is not None and not isinstance(written, dict):
        raise CompressError(f"{document.where((key,))}: `{key}` must be a mapping, not {written!r}.")
    return {**defaults, **(written or {})}


def read_data(values: dict[str, Any], place: Place, task: Task, document: Document) -> DataConfig:
    """A `data` section. Refuses a format that is unknown or has the ground truth of another task."""
    kind = data_format(values, place, document)
    if not kind.serves(task.name):
        told = f"data of the format {values['format']} are for {kind.task}, but the model is for {task.name}"
        fitting = [known for known, kind in FORMATS.items() if kind.serves(task.name)]
        raise CompressError(f"{document.where((*place, 'format'))}: {told}; use {' or '.join(fitting) or 'another model'}.")
    return section(kind, values, place, document)


def read_latency(algorithm: Algorithm, document: Document) -> Latency:
    """The `latency` section, by default for one image of the model's usual size. Refuses an input that the network cannot take."""
    latency = section(Latency, laid_over({"input": [1, 3, *algorithm.input.example]}, "latency", document), ("latency",), document)
    _, channels, *size = latency.input
    steps = algorithm.input.multiple
    if channels != 3 or any(side % step for side, step in zip(size, steps, strict=True)):
        fitting = [max(1, round(side / step)) * step for side, step in zip(size, steps, strict=True)]
        told = f"the model takes 3 channels, a height that is a multiple of {steps[0]} and a width that is one of {steps[1]}"
        raise CompressError(f"{document.where(('latency', 'input'))}: latency.input: {told}, such as {[latency.input[0], 3, *fitting]}.")
    return latency


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


def with_alphabet(model: dict[str, Any], data: dict[str, Any], seed: int, document: Document) -> dict[str, Any]:
    """The `model` section with the characters of an alphabet that it takes from a file, a checkpoint or the texts of its data."""
    written = model.get("alphabet")
    if not isinstance(written, dict) or list(written) not in (["checkpoint"], ["file"], ["texts"]):
        return model
    try:
        if "file" in written:
            return {**model, "alphabet": from_file(written["file"])}
        if "checkpoint" in written:
            return {**model, "alphabet": from_checkpoint(written["checkpoint"])}
        names = split_names(written["texts"])
        source = section(data_format(data, ("data",), document), data, ("data",), document)
        return {**model, "alphabet": from_texts(source.open(name, seed) for name in names)}
    except CompressError as error:
        raise CompressError(f"{document.where(('model', 'alphabet'))}: {error}") from None


def data_format(values: dict[str, Any], place: Place, document: Document) -> type[DataFormat]:
    """The class that a `data` section names. Refuses an unknown one."""
    name = values.get("format")
    if not isinstance(name, str) or name not in FORMATS:
        raise CompressError(f"{document.where((*place, 'format'))}: there is no data format '{name}'{suggestion(str(name), FORMATS)}")
    return FORMATS[name]


def check_model(config: dict[str, Any], document: Document) -> Algorithm:
    """The algorithm. Refuses a model that the registry cannot build."""
    try:
        algorithm = build(config)
        check_parts(config)
    except ValueError as error:
        raise CompressError(f"{document.where_all(('model',))}: {error}") from None
    if algorithm.task not in TASKS:
        raise CompressError(f"{document.where(('model',))}: its task '{algorithm.task}' is not known{suggestion(algorithm.task, TASKS)}")
    return algorithm


def check_evaluate(values: dict[str, Any], algorithm: Algorithm, document: Document) -> Evaluate:
    """The `evaluate` section. Refuses settings that the algorithm does not have."""
    evaluate = section(TASKS[algorithm.task].evaluate, values, ("evaluate",), document)
    try:
        evaluate.settings(algorithm)
    except CompressError as error:
        key = str(error).partition(" ")[0].rstrip(":").removeprefix("evaluate.")
        raise CompressError(f"{document.where(('evaluate', key))}: {error}") from None
    return evaluate


def read_stage(keys: dict[str, Any], task: Task, document: Document) -> Stage:
    """One stage from its keys, `kind` among them."""
    place = ("stages", keys["name"])
    kind = keys["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise CompressError(f"{document.where((*place, 'kind'))}: there is no stage of kind '{kind}'{suggestion(str(kind), KINDS)}")
    settings = {key: value for key, value in keys.items() if key != "kind"}
    if "data" in KINDS[kind].model_fields and isinstance(settings.get("data"), dict):
        settings["data"] = read_data(settings["data"], (*place, "data"), task, document)
    return section(KINDS[kind], settings, place, document)


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
        if stage.initial_weights() and recipe.parent(stage):
            what = f"'{stage.name}' starts from '{recipe.parent(stage)}'; `weights` are for a stage that starts from no other"
            raise CompressError(f"{document.where(('stages', stage.name, 'weights'))}: {what}.")
        check_quantized(recipe, stage, document)
        if stage.gives_model:
            earlier.append(stage.name)


def check_quantized(recipe: Recipe, stage: Stage, document: Document) -> None:
    """An int8 model goes where one can be used, and into formats that can hold one."""
    quantized = quantized_before(recipe, stage)
    if quantized is None:
        return
    if stage.needs_float():
        place = document.where(("stages", stage.name, "from"))
        told = f"'{stage.name}' ({stage.kind}) needs a float model, and '{quantized}' has quantized what it starts from"
        raise CompressError(f"{place}: {told}; put it before that stage, or name an earlier one by `from`.")
    for name in stage.files():
        if name not in HOLD_INT8:
            place = document.where(("stages", stage.name, "formats"))
            raise CompressError(f"{place}: '{quantized}' is quantized and {name} cannot hold int8; use {' or '.join(HOLD_INT8)}.")


def quantized_before(recipe: Recipe, stage: Stage) -> str | None:
    """The stage that has quantized the model which `stage` starts from, whatever was trained since; None too where one was loaded."""
    name = recipe.parent(stage)
    while name and not recipe.stage(name).is_quantized:
        name = None if recipe.stage(name).copied_model() else recipe.parent(recipe.stage(name))
    return name


def check_latencies(recipe: Recipe, document: Document) -> None:
    """A limit on a model's latency needs a runtime that it is timed in; a quantized one, which is no file yet, runs in torch alone."""
    for stage in recipe.stages:
        quantized = stage.is_quantized or quantized_before(recipe, stage)
        timed = "torch" in recipe.latency.runtimes if quantized else recipe.latency.runtimes
        if stage.gives_model and stage.expect and stage.expect.max_latency_ms and not timed:
            place = document.where(("stages", stage.name, "expect", "max_latency_ms"))
            told = f"{place}: '{stage.name}' is timed in none of latency.runtimes"
            raise CompressError(f"{told}; name {'torch' if quantized else 'one'} there, or put max_latency_ms on a stage that exports it.")


def check_scores(recipe: Recipe, task: Task, document: Document) -> None:
    """A metric in 0..1 is written so, not as the percentage that a table shows."""
    for stage in recipe.stages if task.metric.percent else ():
        for path, value in leaves(stage.model_dump(mode="json", by_alias=True)):
            if path[-1] in SCORES and value is not None and not 0 <= value <= 1:
                place = ("stages", stage.name, *path)
                told = f"{'.'.join(place)}: {task.metric.name} is a value in 0..1, so write {value:g} % as {value / 100:g}"
                raise CompressError(f"{document.where(place)}: {told}.")


def leaves(values: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value inside nested mappings, with the keys that lead to it."""
    if not isinstance(values, dict):
        yield path, values
        return
    for key, value in values.items():
        yield from leaves(value, (*path, key))


def section(kind: type[Value], values: Any, place: Place, document: Document) -> Value:
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
        given = "" if isinstance(first["input"], dict) else f", not {shortened(first['input'])}"
        told = f"{'.'.join(path)}: " if path else ""
        raise CompressError(f"{document.where(path)}: {told}{message[0].lower() + message[1:]}{given}.") from None


def shortened(value: Any) -> str:
    """A value as it is written, its middle left out where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:60]} ... {text[-30:]}"


def check_keys(kind: type[BaseModel], values: dict[str, Any], place: Place, document: Document, hidden: Collection[str] = ()) -> None:
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
    """The class of the mapping with known keys that a field takes, where `value` is one; that of data is named by its `format`."""
    kinds = [kind for kind in unfolded(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    if not isinstance(value, dict) or not kinds:
        return None
    if not issubclass(kinds[0], DataFormat):
        return kinds[0]
    found = FORMATS.get(str(value.get("format")))
    return found if found and issubclass(found, tuple(kinds)) else None  # one that does not belong there is refused by its name


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
