"""The `evaluate` section of a recipe."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from compress.errors import CompressError, suggestion
from models.contract import Algorithm


class Evaluate(BaseModel):
    """How pictures are shown to the model, and the decoding thresholds of its algorithm, whose names and ranges the algorithm knows.

    short_side: pixels that the shorter side of every picture is resized to; the other keeps the proportions. Both are then rounded
    up to what the network divides by.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    short_side: int = Field(736, ge=32, le=8192)

    def thresholds(self, algorithm: Algorithm) -> Any:
        """The algorithm's thresholds with this section's values.

        Raises CompressError for a name or a value that the algorithm refuses.
        """
        known = {field.name for field in fields(algorithm.thresholds)}
        for name in self.model_extra:
            if name not in known:
                raise CompressError(f"evaluate.{name} is not known{suggestion(name, known | {'short_side'})}")
        try:
            return algorithm.thresholds(**self.model_extra)
        except (TypeError, ValueError) as error:
            raise CompressError(f"evaluate: {error}") from None

    def with_thresholds(self, **values: float) -> Evaluate:
        """The same section with some thresholds replaced."""
        return Evaluate(**{**self.model_dump(), **values})
