"""What every data format has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from compress.data.split import Split


class DataFormat(BaseModel, ABC):
    """A data set as the `data` section of a recipe names it.

    task: name of the task whose ground truth its samples have. serves_too: names of others that are judged by the same ground truth.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: ClassVar[str]
    serves_too: ClassVar[tuple[str, ...]] = ()

    format: str

    @classmethod
    def serves(cls, task: str) -> bool:
        """Whether models for the task can be judged by its ground truth."""
        return task in (cls.task, *cls.serves_too)

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
