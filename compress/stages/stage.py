"""What every stage has: a name, where it starts, and what is expected of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


class Expect(BaseModel):
    """Limits on a stage's row; where one is broken the run stops there, with the row written and a non-zero exit.

    max_drop: largest loss of the main metric against the first row of the experiment, in the metric's unit (0..1).
    min_score: smallest value of the main metric.
    max_latency_ms: largest median latency, in milliseconds, of any runtime measured.
    max_bytes: largest size of the artefact's weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_drop: float | None = Field(None, ge=0)
    min_score: float | None = None
    max_latency_ms: float | None = Field(None, gt=0)
    max_bytes: int | None = Field(None, gt=0)


class Stage(BaseModel):
    """One step of a recipe. Its fields are the keys people write; `apply` is the work.

    A stage is a pure function of the parent checkpoint, its own fields and the data. It writes into `lab.folder`, which is renamed
    into place when it returns; every artefact it adds with `lab.add` becomes a row of the ledger, measured from disk.

    Every class says whether it `needs_parent`, whether it `gives_model` that other stages can start from, and whether `every_process`
    of a distributed run takes part; the others are done by the main process alone. `others_have_rows` is whether other models that are
    recipes stand in the table beside the stage.

    name: the row's name and the folder's. from: the stage that it starts from; the one before, unless said.
    expect: limits on its row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    kind: ClassVar[str]
    needs_parent: ClassVar[bool] = True
    gives_model: ClassVar[bool] = True
    every_process: ClassVar[bool] = False
    others_have_rows: ClassVar[bool] = True

    name: str = Field("", pattern=r"^[A-Za-z0-9_-]*$", max_length=80)
    from_: str | None = Field(None, alias="from")
    expect: Expect | None = None

    def apply(self, model: Model, lab: Lab) -> Model:
        """Turn the parent's model into this stage's, leaving artefacts in `lab.folder`."""
        raise NotImplementedError

    def check(self, model: Model) -> None:
        """Refuse, before any work, settings that do not fit the unpruned `model` (a pattern that matches no layer)."""

    def other_models(self) -> tuple[str, ...]:
        """Models besides the parent's that the stage works with, as its keys name them: recipes, checkpoint folders, earlier stages."""
        return ()

    def check_others(self, model: Model, others: Mapping[str, Model]) -> None:
        """Refuse, before any work, other models that do not fit the unpruned `model`; those of recipes and stages are as yet untrained."""
