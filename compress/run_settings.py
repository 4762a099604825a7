"""What all stages of a recipe share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny

from compress.data.formats import DataConfig
from compress.runtimes.settings import Latency
from compress.tasks.task import Evaluate
from compress.training.trackers import TrackerName


class RunSettings(BaseModel):
    """A recipe without its stages.

    augment, evaluate: of the classes that the task of the model names. trackers: where training is logged besides `metrics.jsonl`; no
    outcome depends on it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: int = Field(0, ge=0, lt=2**32)
    model: dict[str, Any]
    data: DataConfig
    augment: SerializeAsAny[BaseModel]
    evaluate: SerializeAsAny[Evaluate]
    latency: Latency = Latency()
    trackers: tuple[TrackerName, ...] = ()
