"""`compress plan`: what a recipe will do and what comes out, without training: stages, channels, sizes, and a guess at the time."""

from __future__ import annotations

import copy
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.experiment import Experiment, check_before_work, make_lab, prepare, states
from compress.files import read_json
from compress.outside import allowing, build
from compress.tasks import TASKS
from compress.teachers import data_overrides, teacher_done, untrained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compress.checkpoint import Model
    from compress.lab import Lab
    from compress.recipe import Recipe
    from compress.stages import Stage
    from compress.stages.prune import Prune

# Pictures in a timed step: few, so that a plan takes seconds; the time for a picture hardly depends on it.
TIMED_PIXELS = 1 << 20
TIMED_STEPS = 2
# QAT computes every quantizer in float beside the layer that it belongs to; measured on MobileNetV3 and ResNet on a CPU.
QAT_SLOWDOWN = 3.5


@allowing()
def plan(recipe: str | Path, overrides: Sequence[str] = (), *, out: str | Path | None = None) -> dict[str, Any]:
    """`stages`: for each its name, kind, parent, state, params, macs, bytes, groups (of a prune stage) and seconds (of one to do).

    `seconds`: the guess for all that is to do. Sizes of a stage whose channels depend on weights that are not there yet are None.
    Raises CompressError for whatever would stop a run before its work.
    """
    from compress.checkpoint import fresh

    experiment = prepare(recipe, overrides, out)
    check_before_work(experiment)
    known, loaded = states(experiment), experiment.recipe
    models: dict[str | None, Model | None] = {None: fresh(loaded.model, loaded.evaluate)}
    timings: dict[Any, float] = {}
    stages = []
    for stage in loaded.stages:
        stages += teachers_to_do(experiment, stage, [entry["name"] for entry in stages])
        parent = loaded.parent(stage)
        entry: dict[str, Any] = {"name": stage.name, "kind": stage.kind, "parent": parent, "state": known[stage.name]}
        cached = known[stage.name] == "in the cache"
        if stage.kind == "load":
            models[stage.name] = untrained(experiment, stage.checkpoint)
        elif stage.kind == "prune":
            models[stage.name], entry["groups"] = after_prune(models[parent], stage, experiment, cached)
        elif stage.gives_model:
            models[stage.name] = models[parent]
        entry |= sizes(models.get(stage.name, models[parent]), loaded) if stage.gives_model else {}
        entry["seconds"] = 0.0 if cached else seconds(models[parent], stage, experiment, timings)
        stages.append(entry)
    guesses = [entry["seconds"] for entry in stages]
    return {"recipe": loaded.name, "folder": str(experiment.folder), "stages": stages, "seconds": total(guesses)}


def teachers_to_do(experiment: Experiment, stage: Stage, known: Sequence[str]) -> list[dict[str, Any]]:
    """The stages of those of its teachers' recipes that have not been run and are not `known`, called `<recipe>/<stage>`."""
    found = []
    for teacher in stage.other_models():
        if not teacher_done(experiment, teacher) and not any(name.startswith(f"{Path(teacher).stem}/") for name in known):
            its = plan(teacher, data_overrides(experiment), out=experiment.folder.parent / Path(teacher).stem)
            found += [{**entry, "name": f"{Path(teacher).stem}/{entry['name']}"} for entry in its["stages"]]
    return found


def total(guesses: Sequence[float | None]) -> float | None:
    """Their sum, None where one is not known."""
    return None if None in guesses else sum(guesses)


def sizes(model: Model | None, recipe: Recipe) -> dict[str, Any]:
    """Parameters, multiply-accumulates on the recipe's latency input, and bytes of the float32 weights file."""
    from compress.checkpoint import WEIGHTS, save
    from compress.cost import macs, parameters

    if model is None:
        return {"params": None, "macs": None, "bytes": None}
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder))
        weights = (Path(folder) / WEIGHTS).stat().st_size
    return {"params": parameters(model.network), "macs": macs(model.network, recipe.latency.input), "bytes": weights}


def after_prune(
    model: Model | None, stage: Prune, experiment: Experiment, cached: bool
) -> tuple[Model | None, list[dict[str, Any]] | None]:
    """The model with the channels that the stage will leave, and every group before and after; None where weights decide."""
    from compress.pruning.groups import find_groups, widths

    if model is None:
        return None, None
    groups = find_groups(model, stage.scope, stage.protect)
    if cached:
        channels = read_json(experiment.folder / stage.name / "channels.json")
        kept = {group.name: channels[group.name][1] for group in groups}
    else:
        kept = kept_by_uniform(model, stage, experiment.recipe)
    described = [
        {
            "name": group.name,
            "members": list(group.members),
            "before": group.channels,
            "after": kept and kept[group.name],
            "protected": False,
        }
        for group in groups
    ]
    grouped = {name for group in groups for name in group.members}
    described += [
        {"name": name, "members": [name], "before": width, "after": width, "protected": True}
        for name, width in widths(model.network).items()
        if name not in grouped
    ]
    return (with_widths(model, stage, kept) if kept else None), described


def kept_by_uniform(model: Model, stage: Prune, recipe: Recipe) -> dict[str, int] | None:
    """Channels that each group keeps where the weights do not matter: the same share of all groups, up to a size that can be counted."""
    from compress.pruning.allocation import uniform
    from compress.pruning.budget import cost_of, limit, weakest_enough
    from compress.pruning.groups import find_groups

    groups = find_groups(model, stage.scope, stage.protect)
    if stage.allocation != "uniform" or stage.steps > 1:
        return None
    if stage.target is None:
        return uniform(groups, stage.ratio, stage.round_to)
    kind = stage.target.kind
    if kind not in ("params", "macs", "size"):
        return None
    wanted = limit(kind, getattr(stage.target, kind), cost_of(stage.target, model, recipe.latency))

    def enough(strength: float) -> bool:
        smaller = with_widths(model, stage, uniform(groups, strength, stage.round_to))
        return cost_of(stage.target, smaller, recipe.latency) <= wanted

    strength = weakest_enough(enough, tries=10)
    return None if strength is None else uniform(groups, strength, stage.round_to)


def with_widths(model: Model, stage: Prune, kept: dict[str, int]) -> Model:
    """A copy with so many channels left in each group: the first ones, since only their number matters here."""
    from compress.pruning.groups import find_groups, remove_channels

    smaller = model.with_network(copy.deepcopy(model.network))
    groups = find_groups(smaller, stage.scope, stage.protect)
    remove_channels(smaller, groups, {group.name: range(kept[group.name], group.channels) for group in groups})
    return smaller


def seconds(model: Model | None, stage: Stage, experiment: Experiment, timings: dict[Any, float]) -> float | None:
    """Training steps and evaluations of one stage, by a few timed ones of its own network, crop and batch; None where unknown.

    What trains nothing, calibration of quantizers among it, counts as nothing.
    """
    if not hasattr(stage, "epochs") or getattr(stage, "mode", "") == "ptq":
        return 0.0
    if model is None:
        return None
    lab = make_lab(experiment, experiment.folder, stage)
    shape = (id(model), stage.crop, stage.batch, stage.precision, id(lab.split("train")))
    if shape not in timings:
        timings[shape] = picture_seconds(model, stage, lab)
    evaluation = (id(model), "evaluation")
    if evaluation not in timings:
        timings[evaluation] = evaluation_seconds(model, lab)
    pictures = len(lab.split("train")) // stage.batch * stage.batch or stage.batch
    evaluations = -(-stage.epochs // stage.evaluate_every) * len(lab.split("val"))
    slower = QAT_SLOWDOWN if stage.kind == "quantize" and getattr(stage, "mode", "") == "qat" else 1.0
    taught = sum(teacher_seconds(experiment, teacher, stage, timings) for teacher in stage.other_models())
    return slower * stage.epochs * pictures * (timings[shape] + taught) + evaluations * timings[evaluation]


def teacher_seconds(experiment: Experiment, teacher: str, stage: Stage, timings: dict[Any, float]) -> float:
    """Time that a teacher takes to look at one picture of the stage's."""
    import torch

    height, width = stage.size(TASKS[build(experiment.recipe.model).task])
    key = (teacher, height, width)
    if key not in timings:
        network = untrained(experiment, teacher).network.eval()
        few = max(1, TIMED_PIXELS // (height * width))
        images = torch.zeros(few, 3, height, width).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            network(images)
            start = time.perf_counter()
            network(images)
        timings[key] = (time.perf_counter() - start) / few
    return timings[key]


def picture_seconds(model: Model, stage: Stage, lab: Lab) -> float:
    """Time of a training step by the algorithm's own loss for each of its pictures, the making of samples included."""
    from compress.throughput import endless, learner
    from compress.training.loop import own_loss

    height, width = stage.size(lab.task)
    samples = lab.training_set((height, width))
    few = min(len(samples), max(2, min(stage.batch, TIMED_PIXELS // (height * width))))
    learn = learner(model.with_network(copy.deepcopy(model.network)), own_loss(model.algorithm), stage, lab)
    given = endless(samples, few, workers=0)
    times = []
    for _ in range(TIMED_STEPS + 1):
        start = time.perf_counter()
        learn(islice(given, 1))
        times.append((time.perf_counter() - start) / few)
    return min(times[1:])


def evaluation_seconds(model: Model, lab: Lab) -> float:
    """Time of evaluating one validation picture."""
    from compress.predictor import of_model

    split = lab.split("val")
    predictor = of_model(model.with_network(copy.deepcopy(model.network)))
    few = [split[index] for index in range(min(4, len(split)))]
    start = time.perf_counter()
    lab.score(predictor, few)
    return (time.perf_counter() - start) / len(few)
