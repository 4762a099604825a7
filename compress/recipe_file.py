"""Reading recipe files: YAML with line numbers, `extends`, and overrides from the command line. Knows no key's meaning but `stages`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from compress.errors import CompressError, suggestion
from compress.yaml_text import Place, parsed, read_yaml

DISCRIMINATORS = ("format", "name")
SUFFIXES = (".yml", ".yaml")
LONGEST_CHAIN = 20
# Keys of a stage that name models: recipes, one of whose stages may follow behind a colon, checkpoint folders, files.
MODELS = ("teacher", "checkpoint", "detector", "classifier", "recogniser")


@dataclass
class Document:
    """A recipe as plain values, and where each value was written.

    values: the mapping; `stages` is a mapping from name to the stage's keys, its kind under `kind`.
    places: path of a value -> "file, line n".
    """

    values: dict[str, Any]
    places: dict[Place, str] = field(default_factory=dict)

    def where(self, path: Place) -> str:
        """Where the value at `path`, or the nearest one that holds it, was written."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, "recipe")

    def where_all(self, path: Place) -> str:
        """The same, with the overrides of what lies below."""
        changed = [told for place, told in self.places.items() if place[: len(path)] == path and place != path and told.startswith("-o ")]
        return f"{self.where(path)} with {', '.join(changed)}" if changed else self.where(path)


def read(path: Path, overrides: Sequence[str] = ()) -> Document:
    """The recipe at `path` merged over those it extends, with `key=value` overrides on top.

    Raises CompressError for a file that is missing, is not a YAML mapping, says a key twice, or extends itself.
    """
    document = read_extended(path, ())
    for override in overrides:
        apply_override(document, override)
    return document


def read_extended(path: Path, seen: tuple[Path, ...]) -> Document:
    """One file over the one it extends, recursively."""
    path = path.resolve()
    if path in seen:
        raise CompressError(f"{path} extends itself through {' -> '.join(p.name for p in seen)}; remove one `extends`.")
    document = read_file(path)
    base = document.values.pop("extends", None)
    if base is None:
        document.values["stages"] = named_stages(document)
        find_models(document.values["stages"], path, document.values["stages"])
        return document
    if not isinstance(base, str) or Path(base).suffix not in SUFFIXES:
        raise CompressError(f"{document.where(('extends',))}: `extends` must be the path of a recipe, a .yml file.")
    if len(seen) >= LONGEST_CHAIN:
        raise CompressError(f"{document.where(('extends',))}: {LONGEST_CHAIN} recipes extend one another already; write fewer.")
    below = read_extended(beside(base, path), (*seen, path))
    if isinstance(document.values.get("stages"), list):
        below.values["stages"] = {}
        document.values["stages"] = named_stages(document)
    check_stage_names(document, below)
    stages = document.values.get("stages") or {}
    find_models(stages, path, {**below.values["stages"], **stages})
    below.values = merge(below.values, document.values)
    below.places.update(document.places)
    return below


def beside(name: str, recipe: Path) -> Path:
    """A path written in a recipe: relative to the recipe's own folder, or, where nothing is there, to the working folder."""
    near = recipe.parent / name
    return near if near.exists() or not Path(name).exists() else Path(name)


def read_file(path: Path) -> Document:
    """One YAML file, its values and the line of each; recipe paths inside it are made absolute here, where the file is known."""
    if not path.exists():
        raise CompressError(f"There is no recipe at {path}; `compress recipes` lists those that come with the workbench.")
    if not path.is_file():
        raise CompressError(f"{path} is no file; give a recipe, such as one of those in recipes/.")
    document = Document({})
    values = read_yaml(path, document.places)
    if not isinstance(values, dict):
        raise CompressError(f"{path}: a recipe is a mapping with the keys model, data, evaluate, latency and stages.")
    document.values = values
    return document


def named_stages(document: Document) -> dict[str, Any]:
    """`stages` as written, a list of one-key mappings, as a mapping from name to keys, with `kind` among them."""
    written = document.values.get("stages")
    if not isinstance(written, list) or not written:
        raise CompressError(
            f"{document.where(('stages',))}: `stages` must be a list with at least one stage, such as `- train: {{epochs: 4}}`."
        )
    stages: dict[str, Any] = {}
    for index, item in enumerate(written):
        place = document.where(("stages", str(index)))
        if not isinstance(item, dict) or len(item) != 1:
            raise CompressError(f"{place}: a stage is one key, its kind, with its settings below: `- train: {{epochs: 4}}`.")
        (kind, keys), *_ = item.items()
        keys = {} if keys is None else keys
        if not isinstance(keys, dict):
            raise CompressError(f"{place}: the settings of `{kind}` must be a mapping, such as `{{name: baseline, epochs: 4}}`.")
        name = stage_name(keys.get("name", kind), place)
        if name in stages:
            raise CompressError(f"{place}: two stages are called '{name}'; give one of them another `name`.")
        stages[name] = {"kind": kind, **keys, "name": name}
        move_places(document.places, ("stages", str(index), kind), ("stages", name))
        document.places[("stages", name, "kind")] = place
    return stages


def stage_name(written: Any, place: str) -> str:
    """The name of a stage, which is that of its folder too."""
    if isinstance(written, bool) or not isinstance(written, str | int) or written == "":
        raise CompressError(f"{place}: the `name` of a stage must be a word, such as `name: baseline`, not {written!r}.")
    return str(written)


def find_models(stages: dict[str, Any], file: Path, known: Collection[str]) -> None:
    """Make the paths of teachers, peers and checkpoints in one file's stages independent of what extends it.

    known: names of stages, which are no paths.
    """
    for keys in stages.values():
        mutual = keys.get("mutual") if isinstance(keys, dict) else None
        for holder, key in (*((keys, key) for key in MODELS), (mutual, "peer")):
            if isinstance(holder, dict) and key in holder:
                holder[key] = located(holder[key], partial(beside, recipe=file), known)


def located(written: Any, find: Callable[[str], Path], known: Collection[str]) -> Any:
    """A path, or each of a list, as it reads from the working folder; names of stages and words that lead nowhere are left alone."""
    if isinstance(written, list):
        return [located(item, find, known) for item in written]
    if not isinstance(written, str) or written in known:
        return written
    path, stage = recipe_and_stage(written)
    return from_here(find(path)) + (f":{stage}" if stage else "") if find(path).exists() else written


def recipe_and_stage(written: str) -> tuple[str, str | None]:
    """`a.yml:pruned` -> the recipe and the stage of it that is meant; None behind anything else, for which it is the last model."""
    path, _, stage = written.rpartition(":")
    return (path, stage) if path.endswith(SUFFIXES) and stage else (written, None)


def from_here(path: Path) -> str:
    """A path as it reads from the working folder; absolute where it lies elsewhere."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def move_places(places: dict[Place, str], old: Place, new: Place) -> None:
    """Note the lines known below the path `old` below `new` too."""
    for path in [path for path in places if path[: len(old)] == old]:
        places[(*new, *path[len(old) :])] = places[path]


def check_stage_names(document: Document, below: Document) -> None:
    """Stages that a recipe refines by name must exist in the one that it extends."""
    stages = document.values.get("stages") or {}
    if not isinstance(stages, dict):
        raise CompressError(
            f"{document.where(('stages',))}: `stages` must be a list of stages, or a mapping from names of the extended recipe."
        )
    for name in stages:
        if below.values["stages"] and name not in below.values["stages"] and "kind" not in (stages[name] or {}):
            raise CompressError(
                f"{document.where(('stages', name))}: the extended recipe has no stage '{name}'{suggestion(name, below.values['stages'])}"
            )


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping. A mapping of another `format` or `name` replaces the base's whole."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and not another_kind(below, value):
            value = merge(below, value)
        result[key] = value
    return result


def another_kind(base: dict[str, Any], over: dict[str, Any]) -> bool:
    """Whether two mappings describe different things: another data format, another model."""
    return any(key in base and key in over and base[key] != over[key] for key in DISCRIMINATORS)


def apply_override(document: Document, override: str) -> None:
    """Set `a.b.c=value`; the value is YAML. Stages are addressed by name: `stages.baseline.epochs=2`."""
    dotted, equals, text = override.partition("=")
    path = tuple(part.strip() for part in dotted.split("."))
    if not equals or not all(path):
        raise CompressError(f"-o {override}: an override is written key=value, such as -o stages.baseline.epochs=2.")
    value = parsed(text, f"-o {override}", f"-o {override}", {})
    stages = document.values["stages"]
    if path[0] == "stages" and len(path) < 3:
        raise CompressError(f"-o {override}: say which setting of which stage, such as -o stages.{next(iter(stages))}.epochs=2.")
    if path[0] == "stages" and path[1] not in stages:
        raise CompressError(f"-o {override}: there is no stage '{path[1]}'{suggestion(path[1], stages)}")
    if path[-1] in ("kind", "name") and path[0] == "stages" and len(path) == 3:
        raise CompressError(f"-o {override}: a stage's {path[-1]} is fixed by the recipe; edit the file instead.")
    if path[0] == "stages" and path[-1] in (*MODELS, "peer"):
        value = located(value, Path, stages)
    target = document.values
    for part in path[:-1]:
        if not isinstance(target.get(part), dict):
            target[part] = {}
        target = target[part]
    if path[-1] in DISCRIMINATORS and target.get(path[-1], value) != value:
        target.clear()
    target[path[-1]] = value
    for below in [place for place in document.places if place[: len(path)] == path]:
        del document.places[below]
    document.places[path] = f"-o {override}"
