"""An experiment's folder as plain data. What is not there is left out; only a folder without a ledger is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from compress import ledger
from compress.errors import CompressError, suggestion
from compress.files import read_json, read_lines, read_text
from compress.gates import LIMITS, Gate, gates
from compress.ledger import Row
from compress.records import Channels, Epoch, Manifest, PruneSensitivity, QuantizeSensitivity
from compress.stage_folder import MANIFEST
from compress.tasks import TASKS

NOT_TOLD = ("train", "val", "cache", "damaged")  # of the `data` section: what changes neither validation nor test images
SENSITIVITY = ("sensitivity.json", "sensitivity_quantize.json")


@dataclass(frozen=True)
class StageFacts:
    """What one stage left beside its weights.

    task: name of its task. parent: the stage that it started from. manifest: its manifest.json, empty where there is none.
    weights: digest of those that it left, empty where there are none or it is not known.
    curves: what was trained, `int8` or `int8/control`, -> its metrics, one mapping an epoch.
    channels: layer -> output channels before and after pruning; empty for any other stage.
    """

    name: str
    kind: str
    task: str
    parent: str | None
    key: str
    seconds: float
    manifest: dict[str, Any]
    weights: str
    curves: dict[str, list[dict[str, Any]]]
    channels: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Experiment:
    """One experiment. name: unlike that of any other in the report. recipe: the resolved recipe's text, empty where there is none.
    data: what its validation and test images are, as the recipe says it. gates: what the recipe expects of the rows.

    sensitivity: where it lies in the folder -> the content of a `sensitivity.json` or `sensitivity_quantize.json`.
    foreign: files and folders of stages that lie there but are of other weights than the ledger's, and are not shown.
    """

    name: str
    folder: Path
    rows: list[Row]
    recipe: str
    data: str
    gates: list[Gate]
    stages: list[StageFacts]
    sensitivity: dict[str, dict[str, Any]]
    foreign: list[str]


def collect(folders: Sequence[Path]) -> list[Experiment]:
    """The experiments in `folders`.

    Raises CompressError for a folder that has no ledger, or one without rows.
    """
    names = ledger.distinct_names(folders)
    return [collect_one(folder, name) for folder, name in zip(folders, names, strict=True)]


def collect_one(folder: Path, name: str) -> Experiment:
    """One experiment, under the name that the report calls it by."""
    rows = ledger.read(folder)
    if not rows:
        raise CompressError(f"The ledger of {folder} has no rows yet; let its first stage finish.")
    path = folder / "recipe.yml"
    recipe = read_text(path) if path.exists() else ""
    document = sections_of(recipe, path)
    names = dict.fromkeys(stage_name(row) for row in rows)
    stages = [stage_facts(folder, stage, next(row for row in rows if stage_name(row) == stage)) for stage in names]
    measured = sensitivity(folder)
    own = {path: data for path, data in measured.items() if belongs(path, data, stages)}
    return Experiment(
        name=name,
        folder=folder,
        rows=rows,
        recipe=recipe,
        data=data_text(document),
        gates=gates_of(document, rows),
        stages=stages,
        sensitivity=own,
        foreign=[*(stage.name for stage in stages if is_foreign(folder, stage)), *(path for path in measured if path not in own)],
    )


def sections_of(recipe: str, path: Path) -> dict[str, Any]:
    """The sections of a resolved recipe. Raises CompressError for one that is no YAML."""
    try:
        found = yaml.safe_load(recipe)
    except (yaml.YAMLError, RecursionError):
        raise CompressError(f"{path} is damaged: it is no YAML; restore it, or delete it to report without it.") from None
    return found if isinstance(found, dict) else {}


def data_text(document: dict[str, Any]) -> str:
    """The `data` section, but for how many images are trained on: what scores on equal data have in common."""
    data = document.get("data")
    told = data.items() if isinstance(data, dict) else ()
    return ", ".join(f"{name} {value}" for name, value in told if name not in NOT_TOLD and value is not None)


def gates_of(document: dict[str, Any], rows: list[Row]) -> list[Gate]:
    """What the recipe expects of those stages that have rows, held against them."""
    stages = document.get("stages")
    found = []
    for kinds in stages if isinstance(stages, list) else ():
        for stage in kinds.values() if isinstance(kinds, dict) else ():
            limits = stage.get("expect") if isinstance(stage, dict) else None
            if isinstance(limits, dict):
                its = [row for row in rows if stage_name(row) == stage.get("name")]
                given = {name: limit for name, limit in limits.items() if name in LIMITS and isinstance(limit, (int, float))}
                found += gates(str(stage.get("name")), given, its, rows[0])
    return found


def failed(experiment: Experiment) -> set[str]:
    """The rows that are not what the recipe expects: those that fail a gate, and what else a stage left whose own row does."""
    broken = {found.row.stage for found in experiment.gates if not found.met}
    return broken | {row.stage for row in experiment.rows if stage_name(row) in broken}


def stage_name(row: Row) -> str:
    """The stage that a row's artefact belongs to: `int8` of `int8/ptq`."""
    return row.stage.partition("/")[0]


def stage_facts(experiment: Path, name: str, row: Row) -> StageFacts:
    """One stage, from its first row and, where that is what the row was measured on, its folder."""
    folder = experiment / name
    manifest = read_if_there(folder / MANIFEST, Manifest)
    own = manifest.get("key") == row.key
    return StageFacts(
        name=name,
        kind=row.kind,
        task=row.task,
        parent=row.parent,
        key=row.key,
        seconds=row.seconds,
        manifest=manifest if own else {},
        weights=(manifest.get("weights") or "") if own else "",
        curves=curves(folder, name) if own else {},
        channels=read_if_there(folder / "channels.json", Channels) if own else {},
    )


def is_foreign(experiment: Path, stage: StageFacts) -> bool:
    """Whether the stage's folder holds another outcome than the ledger's: one that was run since, or somebody else's."""
    return not stage.manifest and (experiment / stage.name / MANIFEST).exists()


def belongs(path: str, data: dict[str, Any], stages: Sequence[StageFacts]) -> bool:
    """Whether a sensitivity at `path` in the experiment is of its weights: in a stage's folder if that is, elsewhere by their digest."""
    home = next((stage for stage in stages if stage.name == path.partition("/")[0]), None)
    return bool(home and home.manifest) or data.get("weights") in [stage.weights for stage in stages if stage.weights]


def curves(folder: Path, name: str) -> dict[str, list[dict[str, Any]]]:
    """The metrics of everything that a stage trained: itself, and a control below it."""
    files = sorted(folder.rglob("metrics.jsonl"), key=lambda path: len(path.parts))
    return {"/".join((name, *path.relative_to(folder).parts[:-1])): read_lines(path, Epoch) for path in files}


def read_if_there(path: Path, kind: Any) -> dict[str, Any]:
    """What a JSON file holds; empty where there is none. Raises CompressError where it is damaged."""
    return read_json(path, kind) if path.exists() else {}


def sensitivity(folder: Path) -> dict[str, dict[str, Any]]:
    """The sensitivities in the experiment's folder and in its stages' folders."""
    paths = [path for name in SENSITIVITY for path in (folder / name, *sorted(folder.glob(f"*/{name}"))) if path.exists()]
    kinds = dict(zip(SENSITIVITY, (PruneSensitivity, QuantizeSensitivity), strict=True))
    found = {str(path.relative_to(folder)): read_json(path, kinds[path.name]) for path in paths}
    for path, data in found.items():
        if data["task"] not in TASKS:
            raise CompressError(f"{folder / path}: task '{data['task']}' is not known{suggestion(data['task'], TASKS)}")
    return found
