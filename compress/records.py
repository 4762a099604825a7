"""What the JSON files of an experiment hold: the types that their readers rely on. Keys beside these are kept as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import NotRequired, TypedDict

MORE = ConfigDict(extra="allow")
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**62)]
Number = Count | Finite
Scores = dict[str, Finite]


def having(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The check that a mapping has these keys."""

    def check(values: dict[str, Any]) -> dict[str, Any]:
        for name in names:
            if name not in values:
                raise ValueError(f"it lacks '{name}'")
        return values

    return check


@with_config(MORE)
class Artefact(TypedDict):
    """What a stage has left: the row `<stage>/<suffix>`, at `path` inside its folder; facts of the row beside them."""

    suffix: str
    path: str


# `key.json` of a stage that has been begun: sha256, in hexadecimal, over all that decides its outcome.
Key = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@with_config(MORE)
class Mark(TypedDict):
    """What a complete stage is known by in its `manifest.json`.

    files: path inside the folder -> sha256.
    """

    key: Key
    files: NotRequired[dict[str, str]]


class Manifest(Mark):
    """All of it. weights: digest of the weights that the stage left, None where it left none."""

    kind: str
    weights: NotRequired[str | None]
    parent: str | None
    seed: int
    seconds: Finite
    artefacts: Annotated[list[Artefact], Field(min_length=1)]
    threads: NotRequired[int | None]
    processes: NotRequired[int]
    device: NotRequired[str]
    versions: NotRequired[dict[str, str | None]]
    data: NotRequired[dict[str, str]]


# A line of `metrics.jsonl`: `epoch`, `lr`, `loss`, the parts of the loss and, where it was evaluated, `val_<metric>`.
Epoch = Annotated[dict[str, Number], AfterValidator(having("epoch", "lr", "loss"))]
# `elapsed.json`: seconds that were spent on a stage so far.
Seconds = Annotated[float, Field(ge=0, le=1e10)]
# `channels.json` of a prune stage: layer -> output channels before and after.
Channels = dict[str, tuple[Count, Count]]


@with_config(MORE)
class Rows(TypedDict):
    """`rows.json`: the rows measured under `key`, and the fingerprint of them as `digest`. timed: whether they have latencies."""

    key: str
    digest: str
    timed: bool
    rows: list[dict[str, Any]]


class Timed(TypedDict):
    """A latency: median and 90th percentile in milliseconds, and what they were measured with.

    low, high: the least and the greatest median of several turns, of which `median` is the middle one.
    input: shape of it; empty where real images were timed, from pixels to answer. shares: of a pipeline's parts.
    """

    median: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    p90: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    threads: Count
    input: list[Count]
    rounds: Count
    low: NotRequired[Finite]
    high: NotRequired[Finite]
    shares: NotRequired[dict[str, Finite]]


@with_config(MORE)
class Integers(TypedDict):
    """What :func:`compress.exporters.inspect.inspect` finds in a file."""

    runtime: str
    integer_convs: Count
    convs: Count
    recurrent: NotRequired[Count]
    weight_bytes: dict[str, Count]


@with_config(MORE)
class Facts(TypedDict):
    """What only some rows of the ledger have."""

    epoch: NotRequired[Count]
    val_score: NotRequired[Finite]
    data: NotRequired[str]
    left_out: NotRequired[list[Finite]]
    delta_error: NotRequired[Finite]
    cpu: NotRequired[str]
    integers: NotRequired[Integers]


@with_config(MORE)
class Point(TypedDict):
    """What a network was found to lose; `scores` on validation where they were measured."""

    loss: Finite
    scores: Scores | None


class GroupPoint(Point):
    """A point of pruning one group alone: the share of its channels removed."""

    group: str
    ratio: Annotated[float, Field(ge=0, le=1)]
    params: Count
    macs: Count


class PointLine(Point):
    """A line of `points.jsonl`; at: the group and the ratio, as `compress.pruning.sensitivity.Place` has them."""

    at: tuple[str | None, Finite | None]
    params: Count
    macs: Count


class LayerPoint(Point):
    """A point of quantizing one layer alone."""

    layer: str


@with_config(MORE)
class Group(TypedDict):
    """A group of channels that are pruned together."""

    name: str
    channels: Count


@with_config(MORE)
class Sensitivity(TypedDict):
    """What every sensitivity has. baseline: what points are held against; None until it was measured.

    weights: digest of the weights that it was measured on.
    """

    task: str
    weights: NotRequired[str]
    baseline: Point | None
    artefact: NotRequired[str]
    split: NotRequired[str]
    images: NotRequired[Count]
    settings: NotRequired[dict[str, Any]]
    rank_correlation: NotRequired[Finite | None]


class PruneSensitivity(Sensitivity):
    """`sensitivity.json`."""

    kind: Literal["prune"]
    points: list[GroupPoint]
    unpruned: NotRequired[Point | None]
    groups: list[Group]
    ratios: list[Finite]
    loss_images: NotRequired[Count]
    criterion: NotRequired[str]


class QuantizeSensitivity(Sensitivity):
    """`sensitivity_quantize.json`. key: sha256 over all that decides a point."""

    kind: Literal["quantize"]
    points: list[LayerPoint]
    key: NotRequired[str]


@with_config(MORE)
class Trial(TypedDict):
    """The score with so many layers in float."""

    kept_float: Count
    score: Finite


class ScoreControl(TypedDict):
    """`score_control.json`."""

    max_drop: Finite
    tried: list[Trial]
    kept_float: list[str] | None
    score: Finite | None
    float_score: NotRequired[Finite]


@with_config(MORE)
class Tuned(TypedDict):
    """`tuned.json`: settings chosen on validation, the main metric that they reach there, and how images were shown."""

    settings: dict[str, Any]
    shown: dict[str, Any]
    val_score: Finite


class ShownShape(TypedDict):
    """A word or a class on an image of the report; see :class:`compress.tasks.task.Shape`."""

    outline: list[Annotated[list[Finite], Field(min_length=2, max_length=2)]] | None
    caption: str
    counts: bool


class ShownAnswer(TypedDict):
    """What one artefact says of an image of the report."""

    shapes: list[ShownShape]
    told: str
    scores: Scores


class ShownImage(TypedDict):
    """An image of the report."""

    name: str
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    jpeg: str
    truth: list[ShownShape]
    found: dict[str, ShownAnswer]


class Compared(TypedDict):
    """What :func:`compress.report.compare.compare` finds, and keeps in the cache folder."""

    notes: list[str]
    images: list[ShownImage]
    task: NotRequired[str]


class SweepTrial(TypedDict):
    """A line of `sweep.jsonl`: a run of the recipe with other values.

    trial: its name. point: key -> the number that stands for its value. why: it failed or was stopped. seconds: what it took.
    node: the machine. rows: of its ledger; latencies are those that were taken alone after it.
    """

    trial: str
    point: dict[str, int | float]
    values: dict[str, Any]
    seed: int | None
    state: Literal["running", "finished", "failed", "stopped"]
    why: str
    seconds: Finite
    node: str
    rows: list[dict[str, Any]]


class SweepEnd(TypedDict):
    """`end.json` of a trial: how its process ended, why it did not finish, and the rows of its ledger."""

    state: Literal["finished", "failed"]
    why: str
    rows: list[dict[str, Any]]


class SweepSettings(TypedDict):
    """`sweep.json`: the settings of a sweep, and what all its trials change in the recipe."""

    sweep: dict[str, Any]
    overrides: list[str]
