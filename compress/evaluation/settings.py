"""The `evaluate` section of a recipe."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from compress.errors import CompressError, suggestion
from compress.models.contract import Algorithm

Protocol = Literal["icdar2015", "polygon_iou", "deteval", "cleval"]
DEFAULT_PROTOCOL = "icdar2015"


class Evaluate(BaseModel):
    """How pictures are shown to the model, and the decoding thresholds of its algorithm, whose names and ranges the algorithm knows.

    short_side: pixels that the shorter side of every picture is resized to; the other keeps the proportions. Both are then rounded
    up to what the network divides by. protocol: how detections are held against the words, see `compress.evaluation.protocols`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    short_side: int = Field(736, ge=32, le=8192)
    protocol: Protocol = DEFAULT_PROTOCOL

    @model_serializer(mode="wrap")
    def without_default_protocol(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What was measured before there was a choice keeps its keys in the cache.
        return {name: value for name, value in plain(self).items() if (name, value) != ("protocol", DEFAULT_PROTOCOL)}

    def thresholds(self, algorithm: Algorithm) -> Any:
        """The algorithm's thresholds with this section's values.

        Raises CompressError for a name or a value that the algorithm refuses.
        """
        known = {field.name for field in fields(algorithm.thresholds)}
        for name in self.model_extra:
            if name not in known:
                raise CompressError(f"evaluate.{name} is not known{suggestion(name, known | {'short_side', 'protocol'})}")
        try:
            return algorithm.thresholds(**self.model_extra)
        except (TypeError, ValueError) as error:
            raise CompressError(f"evaluate: {error}") from None

    def reported(self, algorithm: Algorithm) -> dict[str, Any]:
        """The algorithm's thresholds for a table, with the protocol where it is not the usual one."""
        protocol = {} if self.protocol == DEFAULT_PROTOCOL else {"protocol": self.protocol}
        return {**asdict(self.thresholds(algorithm)), **protocol}

    def with_thresholds(self, **values: float) -> Evaluate:
        """The same section with some thresholds replaced."""
        return Evaluate(**{**self.model_dump(), **values})
