"""An experiment's folder as plain data. What is not there is left out; only a folder without a ledger is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import ledger
from compress.errors import CompressError, suggestion
from compress.files import read_json, read_lines, read_text
from compress.ledger import Row
from compress.records import Channels, Epoch, Manifest, PruneSensitivity, QuantizeSensitivity
from compress.tasks import TASKS

SENSITIVITY = ("sensitivity.json", "sensitivity_quantize.json")


@dataclass(frozen=True)
class StageFacts:
    """What one stage left beside its weights.

    task: name of its task. parent: the stage that it started from. manifest: its manifest.json, empty where there is none.
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
    curves: dict[str, list[dict[str, Any]]]
    channels: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Experiment:
    """One experiment. name: unlike that of any other in the report. recipe: the resolved recipe's text, empty where there is none.

    sensitivity: where it lies in the folder -> the content of a `sensitivity.json` or `sensitivity_quantize.json`.
    """

    name: str
    folder: Path
    rows: list[Row]
    recipe: str
    stages: list[StageFacts]
    sensitivity: dict[str, dict[str, Any]]


def collect(folders: Sequence[Path]) -> list[Experiment]:
    """The experiments in `folders`.

    Raises CompressError for a folder that has no ledger, or one without rows.
    """
    names = distinct_names(folders)
    return [collect_one(folder, name) for folder, name in zip(folders, names, strict=True)]


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many parts before it as tell it from the others."""
    paths = [folder.resolve().parts for folder in folders]
    if len(set(paths)) < len(paths):
        raise CompressError("The same experiment is named twice; name each once.")
    depth = 1
    while len({path[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path[-depth:]) for path in paths]


def collect_one(folder: Path, name: str) -> Experiment:
    """One experiment, under the name that the report calls it by."""
    rows = ledger.read(folder)
    if not rows:
        raise CompressError(f"The ledger of {folder} has no rows yet; let its first stage finish.")
    recipe = folder / "recipe.yml"
    stages = list(dict.fromkeys(stage_name(row) for row in rows))
    return Experiment(
        name=name,
        folder=folder,
        rows=rows,
        recipe=read_text(recipe) if recipe.exists() else "",
        stages=[stage_facts(folder, stage, next(row for row in rows if stage_name(row) == stage)) for stage in stages],
        sensitivity=sensitivity(folder),
    )


def stage_name(row: Row) -> str:
    """The stage that a row's artefact belongs to: `int8` of `int8/ptq`."""
    return row.stage.partition("/")[0]


def stage_facts(experiment: Path, name: str, row: Row) -> StageFacts:
    """One stage, from its first row and its folder."""
    folder = experiment / name
    return StageFacts(
        name=name,
        kind=row.kind,
        task=row.task,
        parent=row.parent,
        key=row.key,
        seconds=row.seconds,
        manifest=read_if_there(folder / "manifest.json", Manifest),
        curves=curves(folder, name),
        channels=read_if_there(folder / "channels.json", Channels),
    )


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
