"""`compress plan`: what a recipe will do and what comes out, without training: stages, channels, sizes, and a guess at the time."""

from __future__ import annotations

import copy
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.before_work import check_before_work
from compress.files import read_json
from compress.outside import allowing
from compress.pruning.settings import Pruning, limit
from compress.records import Channels
from compress.runtimes.runtime import available_threads
from compress.session import Session, is_ready, make_lab, prepare, states, untrained
from compress.stage_folder import DONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from compress.checkpoint import Model
    from compress.lab import Lab
    from compress.run_settings import RunSettings
    from compress.stages import Stage
    from compress.training.settings import Schedule

# Images in a timed step: few, so that a plan takes seconds; the time for an image hardly depends on it.
TIMED_PIXELS = 1 << 20
TIMED_STEPS = 2
# QAT computes every quantizer in float beside the layer that it belongs to; measured on MobileNetV3 and ResNet on a CPU.
QAT_SLOWDOWN = 3.5


@allowing()
def plan(recipe: str | Path, overrides: Sequence[str] = (), *, out: str | Path | None = None) -> dict[str, Any]:
    """`stages`: for each its name, kind, parent, state, params, macs, bytes, groups (of a prune stage), epochs (of one that trains) and
    seconds (of one to do).

    `seconds`: the guess for all that is to do. Sizes of a stage whose channels depend on weights that are not there yet are None; the
    seconds of its training are those of the model before it was pruned, and `at_most`, of the stage and of the plan, is True.
    Raises CompressError for whatever would stop a run before its work.
    """
    session = prepare(recipe, overrides, out)
    check_before_work(session)
    return plan_of(session)


def plan_of(session: Session) -> dict[str, Any]:
    """:func:`plan` of a recipe that has been prepared and checked."""
    stages = planned(session, {})
    return {
        "recipe": session.recipe.name,
        "folder": str(session.folder),
        "stages": stages,
        "seconds": sum(entry["seconds"] for entry in stages),
        "at_most": any(entry["at_most"] for entry in stages),
    }


def trains(session: Session) -> bool:
    """Whether a recipe has a stage that trains and is not done; of one that has none, no plan need be made."""
    known = states(session)
    return any(stage.schedule() and known[stage.name] != DONE for stage in session.recipe.stages)


def planned(session: Session, timings: dict[Any, float]) -> list[dict[str, Any]]:
    """The entries of a recipe's stages, those of its teachers' recipes that are to be run first before the stage that needs them."""
    from compress.checkpoint import fresh

    known, recipe = states(session), session.recipe
    whole = fresh(recipe.model, recipe.evaluate)
    models: dict[str | None, Model | None] = {None: whole}
    timed: dict[str | None, Model] = {None: whole}  # those, or what they were pruned from
    counted: dict[int, dict[str, Any]] = {}  # sizes by model: most stages hand on that of their parent
    stages: list[dict[str, Any]] = []
    for stage in recipe.stages:
        stages += teachers_to_do(session, stage, [entry["name"] for entry in stages])
        parent = recipe.parent(stage)
        entry: dict[str, Any] = {"name": stage.name, "kind": stage.kind, "parent": parent, "state": known[stage.name]}
        cached = known[stage.name] == DONE
        copied, pruning = stage.copied_model(), stage.pruning()
        if copied:
            models[stage.name] = untrained(session, copied)
        elif pruning:
            left = session.folder / stage.name / "channels.json" if cached else None
            models[stage.name], entry["groups"] = after_prune(models[parent], pruning, recipe, left)
        elif stage.gives_model:
            models[stage.name] = as_left(models[parent], stage)
        if stage.gives_model:
            given = models[stage.name]
            if id(given) not in counted:
                counted[id(given)] = sizes(given, recipe)
            entry |= counted[id(given)]
        schedule = stage.schedule()
        entry |= {"epochs": schedule.epochs} if schedule else {}
        timed[stage.name] = models.get(stage.name) or timed[parent]
        entry["seconds"] = 0.0 if cached else seconds(timed[parent], stage, session, timings)
        entry["at_most"] = bool(entry["seconds"]) and models[parent] is None
        stages.append(entry)
    return stages


def teachers_to_do(session: Session, stage: Stage, known: Sequence[str]) -> list[dict[str, Any]]:
    """The stages of those of its teachers' recipes that have not been run and are not `known`, called `<experiment>/<stage>`."""
    found: list[dict[str, Any]] = []
    for name in dict.fromkeys(stage.other_models()):
        its = session.others.get(name)
        if its is None or is_ready(session, name) or any(entry.startswith(f"{its.folder.name}/") for entry in known):
            continue
        found += [{**entry, "name": f"{its.folder.name}/{entry['name']}"} for entry in planned(its, {})]
    return found


def sizes(model: Model | None, recipe: RunSettings) -> dict[str, Any]:
    """Parameters, multiply-accumulates on the recipe's latency input, and bytes of the float32 weights file."""
    from compress.checkpoint import shipped_bytes
    from compress.cost import macs, parameters

    if model is None:
        return {"params": None, "macs": None, "bytes": None}
    counted = macs(model.network, recipe.latency.input)
    return {"params": parameters(model.network), "macs": counted, "bytes": shipped_bytes(model)}


def as_left(model: Model | None, stage: Stage) -> Model | None:
    """The model that a stage which removes no channels leaves; None where it changes the architecture of a pruned one."""
    from compress.checkpoint import fresh
    from compress.cost import parameters

    if model is None or (config := stage.architecture(model.config)) == model.config:
        return model
    whole = fresh(model.config, model.evaluate)
    return fresh(config, model.evaluate) if parameters(whole.network) == parameters(model.network) else None


def after_prune(
    model: Model | None, pruning: Pruning, recipe: RunSettings, left: Path | None
) -> tuple[Model | None, list[dict[str, Any]] | None]:
    """The model with the channels that the stage leaves, and every group before and after; None where weights decide.

    left: the `channels.json` of a stage that has been done.
    """
    from compress.pruning.groups import find_groups, widths

    if model is None:
        return None, None
    groups = find_groups(model, pruning.scope, pruning.protect)
    if left:
        channels = read_json(left, Channels)
        kept: dict[str, int] | None = {group.name: channels[group.name][1] // group.unit for group in groups}
    else:
        kept = kept_by_uniform(model, pruning, recipe)
    described = [
        {
            "name": group.name,
            "members": list(group.members),
            "before": group.channels * group.unit,
            "after": kept and kept[group.name] * group.unit,
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
    return (with_widths(model, pruning, kept) if kept else None), described


def kept_by_uniform(model: Model, pruning: Pruning, recipe: RunSettings) -> dict[str, int] | None:
    """Channels that each group keeps where the weights do not matter: the same share of all groups, up to a size that can be counted."""
    from compress.pruning.allocation import uniform
    from compress.pruning.budget import cost_of, weakest_enough
    from compress.pruning.groups import find_groups

    groups, target = find_groups(model, pruning.scope, pruning.protect), pruning.target
    if pruning.allocation != "uniform" or pruning.steps > 1:
        return None
    if target is None or pruning.ratio is not None:
        return uniform(groups, pruning.ratio or 0.0, pruning.round_to)
    if target.kind not in ("params", "macs", "size"):
        return None
    wanted = limit(target.kind, getattr(target, target.kind), cost_of(target, model, recipe.latency).value)

    def enough(strength: float) -> bool:
        smaller = with_widths(model, pruning, uniform(groups, strength, pruning.round_to))
        return cost_of(target, smaller, recipe.latency).value <= wanted

    strength = weakest_enough(enough, tries=10)
    return None if strength is None else uniform(groups, strength, pruning.round_to)


def with_widths(model: Model, pruning: Pruning, kept: dict[str, int]) -> Model:
    """A copy with so many channels left in each group: the first ones, since only their number matters here."""
    from compress.pruning.groups import find_groups, remove_channels

    smaller = model.with_network(copy.deepcopy(model.network))
    groups = find_groups(smaller, pruning.scope, pruning.protect)
    remove_channels(smaller, groups, {group.name: range(kept[group.name], group.channels) for group in groups})
    return smaller


def seconds(model: Model, stage: Stage, session: Session, timings: dict[Any, float]) -> float:
    """Training steps and evaluations of one stage, by a few timed ones of its network, size and batch.

    What trains nothing counts by the images that it looks at; converting and measuring files counts as nothing.
    """
    schedule, pruning = stage.schedule(), stage.pruning()
    looks = stage.looks_at()
    if schedule is None and pruning is None and not looks:
        return 0.0
    lab = make_lab(session, session.folder, stage)
    looking = looking_seconds(model, pruning, looks, lab, timings)
    if schedule is None:
        return looking
    size = schedule.size(lab.task)
    shape = (id(model), size, schedule.batch, schedule.precision, id(lab.split("train")))
    if shape not in timings:
        timings[shape] = image_seconds(model, schedule, lab)
    evaluation = (id(model), "evaluation")
    if evaluation not in timings:
        timings[evaluation] = evaluation_seconds(model, lab)
    images = stage.planned_steps(len(lab.split("train"))) * schedule.batch
    evaluations = -(-schedule.epochs // schedule.evaluate_every) * len(lab.split("val"))
    slower = QAT_SLOWDOWN if stage.is_qat() else 1.0
    taught = sum(teacher_seconds(session, teacher, size, timings) for teacher in stage.other_models())
    return looking + slower * images * (timings[shape] + taught) + evaluations * timings[evaluation]


# Of a gradient in forward passes, and of a pass through a network with quantizers that are being calibrated; both measured on a CPU.
GRADIENT, CALIBRATION = 3.0, 4.0


def looking_seconds(model: Model, pruning: Pruning | None, calibration: int, lab: Lab, timings: dict[Any, float]) -> float:
    """Time for what a stage does with images beside training: importance, statistics and sensitivity of a pruning, and calibration."""
    whole = lab.task.size(lab.recipe.evaluate, lab.algorithm.input)
    found = CALIBRATION * calibration * forward_seconds(model, whole, timings) if calibration else 0.0
    if pruning is None:
        return found
    from compress.pruning.criteria import LOOK_AT_LOSS
    from compress.pruning.groups import find_groups
    from compress.pruning.sensitivity import Settings
    from compress.pruning.shrink import SENSITIVITY_RATIOS

    passes = 2.0 + GRADIENT * (pruning.criterion in LOOK_AT_LOSS)
    crop = pruning.crop or lab.task.crop
    found += pruning.steps * passes * pruning.batches * pruning.batch * forward_seconds(model, crop, timings)
    if pruning.allocation == "sensitivity":
        settings = Settings(SENSITIVITY_RATIOS)
        points = 2 + len(SENSITIVITY_RATIOS) * len(find_groups(model, pruning.scope, pruning.protect))
        images = settings.loss_images + settings.batches * settings.batch
        found += pruning.steps * points * images * forward_seconds(model, whole, timings) / available_threads(None)
    return found


def forward_seconds(model: Model, size: tuple[int, int], timings: dict[Any, float]) -> float:
    """Time in which a network looks at one image of that height and width."""
    key = (id(model), "forward", size)
    if key not in timings:
        timings[key] = seconds_an_image(model.network, size)
    return timings[key]


def teacher_seconds(session: Session, teacher: str, size: tuple[int, int], timings: dict[Any, float]) -> float:
    """Time that a teacher takes to look at one image of the stage's, of height and width `size`."""
    key = (id(session), teacher, size)
    if key not in timings:
        timings[key] = seconds_an_image(untrained(session, teacher).network, size)
    return timings[key]


def seconds_an_image(network: nn.Module, size: tuple[int, int]) -> float:
    """Time of one forward pass over its images."""
    import torch

    few = max(1, TIMED_PIXELS // (size[0] * size[1]))
    images = torch.zeros(few, 3, *size).to(memory_format=torch.channels_last)
    network.eval()
    with torch.inference_mode():
        network(images)
        start = time.perf_counter()
        network(images)
    return (time.perf_counter() - start) / few


def image_seconds(model: Model, schedule: Schedule, lab: Lab) -> float:
    """Time of a training step by the algorithm's own loss for each of its images, the making of samples included."""
    from compress.throughput import endless, learner
    from compress.training.loop import own_loss

    size = schedule.size(lab.task)
    samples = lab.training_set(size)
    few = min(len(samples), max(2, min(schedule.batch, TIMED_PIXELS // (size[0] * size[1]))))
    learn = learner(model.with_network(copy.deepcopy(model.network)), own_loss(model.algorithm), schedule, lab)
    given = endless(samples, few, workers=0)
    times = []
    for _ in range(TIMED_STEPS + 1):
        start = time.perf_counter()
        learn(islice(given, 1))
        times.append((time.perf_counter() - start) / few)
    return min(times[1:])


def evaluation_seconds(model: Model, lab: Lab) -> float:
    """Time of evaluating one validation image."""
    from compress.predictor import of_model

    split = lab.split("val")
    predictor = of_model(model.with_network(copy.deepcopy(model.network)))
    few = [split[index] for index in range(min(4, len(split)))]
    start = time.perf_counter()
    lab.score(predictor, few)
    return (time.perf_counter() - start) / len(few)
