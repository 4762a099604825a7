"""What every stage has: a name, where it starts, what is expected of it, and what others may ask of it before it works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from compress.data.formats import DataConfig
from compress.exporters.formats import Format
from compress.pruning.settings import Pruning
from compress.training.settings import Schedule

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab

# What every training depends on: the order and the views of its images, and the validation that chooses its best epoch.
TRAINING = ("seed", "model", "augment", "evaluate")


class Expect(BaseModel):
    """Limits on a stage's row; where one is broken the run stops there, with the row written and a non-zero exit.

    max_drop: largest loss of the main metric against the first row of the experiment, in the metric's own unit; 0..1 where a table shows
    it as a percentage.
    min_score: the worst value of the main metric that is good enough.
    max_latency_ms: largest median latency, in milliseconds, of any runtime measured.
    max_bytes: largest size of the artefact's weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_drop: float | None = Field(None, ge=0)
    min_score: float | None = Field(None, allow_inf_nan=False)
    max_latency_ms: float | None = Field(None, gt=0)
    max_bytes: int | None = Field(None, gt=0)


class Stage(BaseModel):
    """One step of a recipe. Its fields are the keys that people write; `apply` is the work.

    A stage is a pure function of the parent's checkpoint, its own fields, the settings of the run that it `reads`, the `splits` and the
    `other_models`. It writes into `lab.folder`, which is renamed into place when it returns; every artefact that it adds with `lab.add`
    becomes a row of the ledger, measured from disk.

    kind: the key in the recipe. version: a number in the cache key; raise it when a change of the code changes what the stage gives.
    libraries: the packages whose version may change the outcome.

    Every class also says whether it `needs_parent`, whether it `gives_model` that other stages can start from, and whether that model
    `is_quantized`. `others_have_rows` is whether other models that are recipes stand in the table beside the stage; `others_share_data`
    is whether they are for the same task, so that another data set for this recipe is theirs too.

    name: the row's name and the folder's. from: the stage that it starts from; the one before, unless said.
    expect: limits on its row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    kind: ClassVar[str]
    version: ClassVar[int]
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    needs_parent: ClassVar[bool] = True
    gives_model: ClassVar[bool] = True
    is_quantized: ClassVar[bool] = False
    others_have_rows: ClassVar[bool] = True
    others_share_data: ClassVar[bool] = True

    name: str = Field("", pattern=r"^[A-Za-z0-9_-]*$", max_length=80)
    from_: str | None = Field(None, alias="from")
    expect: Expect | None = None

    def apply(self, model: Any, lab: Lab) -> Model:
        """Turn the model of the parent (None for a stage that needs none) into this stage's, leaving artefacts in `lab.folder`."""
        raise NotImplementedError

    def check(self, model: Model) -> None:
        """Refuse, before any work, settings that do not fit the unpruned `model` (a pattern that matches no layer)."""

    def check_others(self, model: Model, others: Mapping[str, Model]) -> None:
        """Refuse, before any work, other models that do not fit the unpruned `model`; those of recipes and stages are as yet untrained."""

    def other_models(self) -> tuple[str, ...]:
        """Models besides the parent's that the stage works with, as its keys name them: recipes, checkpoint folders, earlier stages."""
        return ()

    def architecture(self, config: dict[str, Any]) -> dict[str, Any]:
        """The `model` section of the model that it gives, of a parent with the section `config`: the same unless the stage changes it."""
        return config

    def copied_model(self) -> str | None:
        """The one of them that the stage's own model is a copy of."""
        return None

    def initial_weights(self) -> str | None:
        """File, checkpoint folder or URL of weights that it starts from."""
        return None

    def exported_files(self) -> tuple[str, ...]:
        """Exported files that it takes as they are."""
        return ()

    def own_data(self) -> DataConfig | None:
        """The data that it trains on instead of the recipe's."""
        return None

    def splits(self) -> tuple[str, ...]:
        """The splits whose images its outcome depends on."""
        return ("train", "val")

    def reads(self) -> tuple[str, ...]:
        """The settings of the run that its outcome depends on, such as `seed` and `latency.input`; data are counted by `splits`."""
        return ()

    def schedule(self) -> Schedule | None:
        """How it trains; None where it trains nothing."""
        return None

    def needs_float(self) -> bool:
        """Whether it cannot start from a quantized model."""
        return False

    def every_process(self) -> bool:
        """Whether every process of a distributed run takes part, as in what trains; else the main process does it alone."""
        return self.schedule() is not None

    def is_qat(self) -> bool:
        """Whether it trains through fake quantizers."""
        return False

    def planned_steps(self, images: int) -> int:
        """Training steps on a split of so many images, as `compress plan` counts them."""
        schedule = self.schedule()
        return schedule.epochs * max(1, images // schedule.batch) if schedule else 0

    def looks_at(self) -> int:
        """How many training images it looks at beside what it trains and prunes on."""
        return 0

    def pruning(self) -> Pruning | None:
        """Which channels it removes; None where it removes none."""
        return None

    def files(self) -> tuple[Format, ...]:
        """The file formats that it writes."""
        return ()
