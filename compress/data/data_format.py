"""What every data format has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from compress.data.split import Split


class DataFormat(BaseModel, ABC):
    """A data set as the `data` section of a recipe names it. task: name of the task whose ground truth its samples have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: ClassVar[str]

    format: str

    @abstractmethod
    def default_augment(self) -> BaseModel:
        """What happens to training images unless the recipe says otherwise: the task's `augment`."""

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Those of `train`, `val` and `test` that there are. Raises CompressError where there is none."""

    @abstractmethod
    def open(self, split: str, seed: int, progress: Callable[[int, int], None] | None = None) -> Split:
        """The samples of a split. progress: called with (images done, images in all) while they are made or decoded.

        Raises CompressError for a split that is not there, and for damage unless it is skipped.
        """
