"""From the settings of a prune stage to a smaller model: score channels, allocate, remove, correct statistics; in one step or several."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from compress.checkpoint import DESCRIPTION, Model, load, save
from compress.files import remembered, write_json
from compress.lab import Lab
from compress.processes import agreed, main_process, wait_for_everyone
from compress.progress import Bar
from compress.pruning.allocation import Widths, by_sensitivity, curves_from, least_important, ranked, uniform
from compress.pruning.batch_norm import first_batches, move_statistics, observed
from compress.pruning.budget import STRONGEST, Cost, cost_of, refuse_unreachable, strongest_good, weakest_enough
from compress.pruning.criteria import LOOK_AT_LOSS, score_channels
from compress.pruning.groups import Group, find_groups, remove_channels
from compress.pruning.settings import Pruning
from compress.records import PruneSensitivity
from compress.runtimes.runtime import available_threads

BUDGET_TRIES, LATENCY_TRIES, DROP_TRIES = 16, 7, 5
LATENCY_MARGIN = 0.97  # of a latency: what a measurement of the same file differs by on a quiet machine
SENSITIVITY_RATIOS = (0.2, 0.4, 0.6, 0.8)


def shrink(model: Model, stage: Pruning, lab: Lab) -> Model:
    """What is left of `model`, which is used up, as the stage says; leaves checkpoints in `lab.folder` and `lab.folder/raw`.

    Of a distributed run, the main process alone decides what is removed; the others take what it has left, and recover with it.
    """
    model.network.to(lab.device)
    draw = partial(first_batches, lab.training_set(stage.crop or lab.task.crop), stage.batch, stage.batches, lab)
    if stage.target is not None and stage.target.kind == "max_drop":
        return shrink_within_drop(model, stage, lab, draw)
    start = cost_of(stage.target, model, lab.recipe.latency).value if stage.target and main_process() else 0.0
    for step in range(1, stage.steps):
        cut = left_by_main(lab, f"step{step}/cut", partial(shrink_once, model, stage, lab, draw, step, start))
        model = recover(cut, stage, lab, f"step{step}")
        model.network.to(lab.device)
    return left_by_main(lab, "", partial(shrink_once, model, stage, lab, draw, stage.steps, start))


def left_by_main(lab: Lab, name: str, make: Callable[[], Model]) -> Model:
    """The model that `make` gives, saved as `name` in the stage's folder; where an interrupted run has left it there, that one.

    What was chosen by a clock, or on another device, need not be chosen again alike. In a distributed run the main process makes it.
    """
    folder = lab.folder / name
    if main_process() and not (folder / DESCRIPTION).is_file():
        save(make(), folder)
    wait_for_everyone()
    found = load(folder)
    found.network.to(lab.device)
    return found


def shrink_once(model: Model, stage: Pruning, lab: Lab, draw: Callable[[], Any], step: int, start: float) -> Model:
    """One step of pruning, in place; start: what the whole model costs. The last leaves the model as it is cut in `raw`."""
    groups = find_groups(model, stage.scope, stage.protect)
    scores = importance(model, groups, stage, lab, draw)
    widths_at = allocate(model, groups, scores, stage, lab, step)
    if stage.ratio is not None:
        kept = widths_at(1 - (1 - stage.ratio) ** (1 / stage.steps))
    else:
        share = stage.wanted(start) / start
        kept = widths_within(model, stage, groups, scores, widths_at, start * share ** (step / stage.steps), lab)
    with statistics_bar(stage, lab) as bar:
        before = cut_like(model.with_network(observed(model.network, images_of(draw, bar))), stage, groups, scores, kept)
    remove_channels(model, groups, least_important(groups, scores, kept))
    if step == stage.steps:
        save(model, lab.folder / "raw")
    with statistics_bar(stage, lab) as bar:
        move_statistics(model.network, before.network, images_of(draw, bar))
    return model


def importance(model: Model, groups: Sequence[Group], stage: Pruning, lab: Lab, draw: Callable[[], Any]) -> dict[str, Tensor]:
    """The importance of all channels by the stage's criterion, under a bar where it looks at images."""
    total = stage.batches * stage.batch if stage.criterion in LOOK_AT_LOSS else 0
    with lab.bar(f"{lab.name}: importance of channels", total) as bar:
        return score_channels(model, groups, stage.criterion, draw(), lab.recipe.seed, bar.advance)


def statistics_bar(stage: Pruning, lab: Lab) -> AbstractContextManager[Bar]:
    """A bar for one look at all batches."""
    return lab.bar(f"{lab.name}: statistics", stage.batches * stage.batch)


def images_of(draw: Callable[[], Iterable[tuple[Tensor, Any]]], bar: Bar) -> Iterator[Tensor]:
    """The images of new batches, counted when the next are asked for."""
    for images, _ in draw():
        yield images
        bar.advance(len(images))


def allocate(
    model: Model, groups: Sequence[Group], scores: Mapping[str, Tensor], stage: Pruning, lab: Lab, step: int = 1
) -> Callable[[float], Widths]:
    """The stage's allocation as a function of strength alone."""
    if stage.allocation == "uniform":
        return lambda strength: uniform(groups, strength, stage.round_to)
    if stage.allocation == "global":
        return lambda strength: ranked(groups, scores, strength, stage.round_to, stage.max_ratio)
    kind = stage.target.kind if stage.target else "params"
    curves = curves_from(sensitivity_of(model, stage, lab, step), "params" if kind in ("params", "size") else "macs")
    give = partial(by_sensitivity, groups, curves, round_to=stage.round_to, max_ratio=stage.max_ratio)
    if stage.target is not None:
        return give
    return lambda share: losing_share(give, groups, share)


def losing_share(give: Callable[[float], Widths], groups: Sequence[Group], share: float) -> Widths:
    """The weakest allocation that takes at least `share` of all channels, or the strongest there is."""
    left = (1 - share) * sum(group.channels for group in groups)
    strength = weakest_enough(lambda strength: sum(give(strength).values()) <= left, tries=BUDGET_TRIES)
    return give(1.0 if strength is None else strength)


def sensitivity_of(model: Model, stage: Pruning, lab: Lab, step: int) -> dict[str, Any]:
    """The fast sensitivity pass on the model as it is now; kept in the stage's folder, where an interrupted one goes on."""
    from compress.pruning.sensitivity import Bench, Settings, sweep

    name = "sensitivity" if step == 1 else f"sensitivity_step{step}"
    known = remembered(lab.folder / f"{name}.json", PruneSensitivity)
    if known:
        return known
    settings = Settings(SENSITIVITY_RATIOS, stage.criterion, stage.scope, stage.protect, full=False)
    whole = lab.folder / f"{name}.partial"
    save(model, whole)
    workers = available_threads(None) if lab.device.type == "cpu" else 1
    with lab.bar(f"{lab.name}: sensitivity (points)", 1) as bar:
        found = sweep(Bench(model, lab, settings), whole, whole, workers, bar.reach)
    shutil.rmtree(whole)
    write_json(lab.folder / f"{name}.json", found)
    return found


def widths_within(
    model: Model,
    stage: Pruning,
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    widths_at: Callable[[float], Widths],
    wanted: float,
    lab: Lab,
) -> Widths:
    """The weakest allocation whose measured cost is at most `wanted`; by sensitivity, with what more still fits.

    Raises CompressError where none is.
    """
    costs: dict[tuple[int, ...], Cost] = {}
    target = stage.budget()
    most = wanted * LATENCY_MARGIN if target.kind == "latency" else wanted

    def fits(kept: Widths) -> bool:
        key = tuple(kept.values())
        if key not in costs:
            costs[key] = cost_of(target, cut_copy(model, stage, groups, scores, kept), lab.recipe.latency)
        return costs[key].value <= most

    tries = LATENCY_TRIES if target.kind == "latency" else BUDGET_TRIES
    with lab.bar(f"{lab.name}: widths for {target.kind} (tries)", tries) as bar:

        def enough(strength: float) -> bool:
            bar.advance(1)
            return fits(widths_at(strength))

        strength = weakest_enough(enough, tries=tries)
    if strength is None:
        refuse_unreachable(target, min(costs.values()).told)
    kept = widths_at(strength)
    if stage.allocation != "sensitivity" or target.kind == "latency":
        return kept
    return given_back(kept, widths_at(strength - STRONGEST / 2**tries), fits)


def given_back(kept: Widths, before: Widths, fits: Callable[[Widths], bool]) -> Widths:
    """`kept`, with the widths `before`, at the next smaller strength, in each group where they still fit, one group after another.

    Groups of one price lose channels at one strength: all together they can take far more than the target asks for.
    """
    for name, width in before.items():
        wider = {**kept, name: width}
        if width > kept[name] and fits(wider):
            kept = wider
    return kept


def cut_copy(model: Model, stage: Pruning, groups: Sequence[Group], scores: Mapping[str, Tensor], kept: Widths) -> Model:
    """A copy of the model with so many channels left in each group."""
    return cut_like(model.with_network(copy.deepcopy(model.network)), stage, groups, scores, kept)


def cut_like(twin: Model, stage: Pruning, groups: Sequence[Group], scores: Mapping[str, Tensor], kept: Widths) -> Model:
    """`twin`, of the architecture in which `groups` were found, with so many channels left in each, in place."""
    remove_channels(twin, find_groups(twin, stage.scope, stage.protect), least_important(groups, scores, kept))
    return twin


def shrink_within_drop(model: Model, stage: Pruning, lab: Lab, draw: Callable[[], Any]) -> Model:
    """The strongest pruning that loses, after recovery, at most the target of the main metric on validation."""
    target, parent = stage.budget(), agreed(lambda: lab.evaluate(model, "val"))
    most = target.max_drop or 0.0
    cutter = functools.cache(lambda: Cutter.of(model, stage, lab, draw))
    tried: list[dict[str, Any]] = []

    def good(strength: float) -> bool:
        name = f"search/{strength:.4f}"
        cut = left_by_main(lab, f"{name}/cut", lambda: cutter().cut(strength, lab.folder / name / "raw"))
        recovered = recover(cut, stage, lab, name)
        found = agreed(lambda: lab.evaluate(recovered, "val"))
        drop = -lab.task.gain(parent, found)
        tried.append({"strength": strength, "val_score": found[lab.task.main], "drop": drop})
        return drop <= most

    strength = strongest_good(good, tries=DROP_TRIES)
    if main_process():
        write_json(lab.folder / "search.json", {"parent_val_score": parent[lab.task.main], "tried": tried, "strength": strength})
    if strength is None:
        refuse_unreachable(target, f"{min(entry['drop'] for entry in tried):.4g}")
    return keep_found(lab, f"search/{strength:.4f}")


@dataclass(frozen=True)
class Cutter:
    """Everything that is the same at each strength. seen: the model as it saw images before any channel was removed."""

    model: Model
    stage: Pruning
    lab: Lab
    draw: Callable[[], Any]
    groups: Sequence[Group]
    scores: Mapping[str, Tensor]
    widths_at: Callable[[float], Widths]
    seen: Model

    @classmethod
    def of(cls, model: Model, stage: Pruning, lab: Lab, draw: Callable[[], Any]) -> Cutter:
        """The groups of the model, their importance and their widths, each found once."""
        groups = find_groups(model, stage.scope, stage.protect)
        scores = importance(model, groups, stage, lab, draw)
        widths_at = allocate(model, groups, scores, stage, lab)
        with statistics_bar(stage, lab) as bar:
            seen = model.with_network(observed(model.network, images_of(draw, bar)))
        return cls(model, stage, lab, draw, groups, scores, widths_at, seen)

    def cut(self, strength: float, raw: Path) -> Model:
        """A copy of the model with what is left at `strength`; without its statistics moved, it is left at `raw`."""
        kept = self.widths_at(strength)
        smaller, before = (cut_copy(whole, self.stage, self.groups, self.scores, kept) for whole in (self.model, self.seen))
        save(smaller, raw)
        with statistics_bar(self.stage, self.lab) as bar:
            move_statistics(smaller.network, before.network, images_of(self.draw, bar))
        return smaller


def keep_found(lab: Lab, name: str) -> Model:
    """The recovered model of the chosen strength as the stage's own."""
    found = load(lab.folder / name)
    lab.save(load(lab.folder / name / "raw"), lab.folder / "raw")
    lab.save(found, lab.folder)
    return found


def recover(model: Model, stage: Pruning, lab: Lab, name: str) -> Model:
    """Train by the algorithm's own loss and the stage's `recover`, in a folder of its own, where an interrupted recovery goes on."""
    from compress.training.loop import fit, own_loss

    assert stage.recover is not None, "a recipe with steps or max_drop has a schedule for recovery"
    return fit(model, own_loss(model.algorithm), stage.recover, lab, label=f"{lab.name}/{name}", folder=lab.folder / name)
