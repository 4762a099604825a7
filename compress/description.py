"""What a `model.yml` and the metadata of an exported file say: which model it is and how it is meant to be shown images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compress.errors import CompressError
from compress.files import first_fault, read_json, write_json
from compress.models.contract import Algorithm
from compress.outside import build
from compress.records import Tuned
from compress.tasks import TASKS
from compress.tasks.task import Evaluate

TUNED = "tuned.json"


@dataclass(frozen=True)
class Described:
    """A description that was found to be whole. config: the `model` section. tuned: as in `compress.records.Tuned`, or empty."""

    config: dict[str, Any]
    algorithm: Algorithm
    evaluate: Evaluate
    tuned: dict[str, Any]


def understood(description: Mapping[str, Any], origin: Path) -> Described:
    """The model that a description, found in the file `origin`, is of.

    Raises CompressError where the model cannot be built here, or its settings are not those of such a model.
    """
    config, shown, tuned = (description.get(name) for name in ("model", "evaluate", "tuned"))
    if not isinstance(config, dict) or not isinstance(shown, dict) or not isinstance(tuned or {}, dict):
        raise CompressError(f"{origin} is damaged: its `model` and `evaluate` must be mappings; make it again.")
    try:
        algorithm = build(config)
        if algorithm.task not in TASKS:
            raise ValueError(f"its task '{algorithm.task}' is not known.")
        evaluate = TASKS[algorithm.task].evaluate(**shown)
        evaluate.settings(algorithm)
    except (TypeError, ValueError, CompressError) as error:
        raise CompressError(f"{origin} does not describe a model that can be built here: {told(error)}") from None
    if tuned:
        check_tuned(tuned, algorithm, evaluate, origin)
    return Described(config, algorithm, evaluate, tuned or {})


def check_tuned(tuned: Mapping[str, Any], algorithm: Algorithm, evaluate: Evaluate, origin: Path) -> None:
    """Refuse tuned settings that the algorithm does not have."""
    settings = tuned.get("settings")
    try:
        if (
            not isinstance(settings, dict)
            or not isinstance(tuned.get("shown"), dict)
            or not isinstance(tuned.get("val_score"), int | float)
        ):
            raise ValueError("it lacks `settings`, `shown` or `val_score`.")
        evaluate.with_settings(settings).settings(algorithm)
    except (TypeError, ValueError, CompressError) as error:
        raise CompressError(f"{origin} is damaged: {told(error)} Delete it, or run `compress eval --tune` again.") from None


def save_tuned(folder: Path, tuned: dict[str, Any]) -> None:
    """Keep tuned settings beside a checkpoint, or beside the parts of a pipeline."""
    write_json(folder / TUNED, tuned)


def read_tuned(folder: Path) -> dict[str, Any]:
    """The tuned settings in a folder; none where nothing was tuned. Raises CompressError for a damaged file."""
    path = folder / TUNED
    return dict(read_json(path, Tuned)) if path.exists() else {}


def told(error: Exception) -> str:
    """What is wrong, on one line."""
    return f"{first_fault(error)}." if isinstance(error, ValidationError) else " ".join(str(error).split())
