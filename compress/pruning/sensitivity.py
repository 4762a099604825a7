"""How sensitive a model is to pruning: each channel group is pruned alone, at several ratios, its statistics re-estimated, and measured.

Re-estimation on a few images costs something by itself. So the baseline is the unpruned model with statistics re-estimated in the same way.
A fast sweep takes the algorithm's loss on a few validation images; a full one adds the scores on the validation split.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.checkpoint import Model, example_input, load, weights_digest
from compress.cost import macs, parameters
from compress.data.prepare import network_input
from compress.errors import CompressError
from compress.files import parse_json, read_text, write_text
from compress.lab import Lab, no_teacher
from compress.models.contract import Sample
from compress.outside import ALLOWED
from compress.predictor import Outputs, Predictor, Reader, score
from compress.processes import end_with_parent
from compress.pruning.allocation import least_important, rounded
from compress.pruning.batch_norm import first_batches, reestimate_all
from compress.pruning.criteria import score_channels
from compress.pruning.groups import Group, find_groups, remove_channels
from compress.pruning.settings import Criterion, Scope
from compress.pruning.together import together
from compress.quantization.folding import fold_batch_norms
from compress.rank import rank_correlation
from compress.records import PointLine
from compress.run_settings import RunSettings
from compress.tasks.task import Scores, Task
from compress.training.modes import show_all_maps

POINTS = "points.jsonl"
# A group and the share of its channels to remove. With no group: all channels stay; with no share, so do the statistics.
Place = tuple[str | None, float | None]
UNPRUNED: Place = (None, None)
REESTIMATED: Place = (None, 0.0)


@dataclass(frozen=True)
class Settings:
    """What to measure.

    ratios: shares of a group's channels to remove, increasing, in 0..1. images: validation images for the scores, the first of the split.
    full: measure the scores, not the loss alone. loss_images: validation images for the loss. batches, batch: training samples, at the
    size of evaluation, for the statistics of the norms and for criteria that look at the loss.
    """

    ratios: tuple[float, ...]
    criterion: Criterion = "taylor"
    scope: Scope = "model"
    protect: tuple[str, ...] = ()
    full: bool = True
    images: int | None = None
    loss_images: int = 12
    batches: int = 2
    batch: int = 8


@dataclass
class Bench:
    """A model whose sensitivity is measured, with all that each point needs, made once."""

    model: Model
    lab: Lab
    settings: Settings

    @cached_property
    def groups(self) -> list[Group]:
        return find_groups(self.model, self.settings.scope, self.settings.protect)

    @cached_property
    def training_batches(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        samples = self.lab.training_set(working_size(self.lab))
        return list(first_batches(samples, self.settings.batch, self.settings.batches, self.lab))

    @cached_property
    def scores(self) -> dict[str, Tensor]:
        return score_channels(self.model, self.groups, self.settings.criterion, iter(self.training_batches), self.lab.recipe.seed)

    @cached_property
    def loss_batches(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        split = self.lab.split("val")
        samples = [split[index] for index in range(min(self.settings.loss_images, len(split)))]
        return list(evaluation_batches(self.model, samples, self.lab))

    @cached_property
    def images(self) -> list[Sample]:
        split = self.lab.split("val")
        count = min(self.settings.images or len(split), len(split))
        return [split[index] for index in range(count)]


def working_size(lab: Lab) -> tuple[int, int]:
    """Height and width of training images on the scale of evaluation."""
    return lab.task.size(lab.recipe.evaluate, lab.algorithm.input)


def evaluation_batches(model: Model, samples: Sequence[Sample], lab: Lab, most: int = 8) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """(images, targets) of whole images as at inference, up to `most` of equal size that follow each other in a batch."""
    algorithm = model.algorithm
    group: list[Sample] = []
    for sample in [*samples, None]:
        resized = None if sample is None else lab.task.resized(sample, lab.recipe.evaluate, algorithm.input)
        if group and (resized is None or len(group) == most or resized.image.shape != group[0].image.shape):
            images = torch.from_numpy(network_input([one.image for one in group], algorithm.input))
            made = [algorithm.targets(one) for one in group]
            targets = {name: torch.from_numpy(np.stack([maps[name] for maps in made])).to(lab.device) for name in made[0]}
            yield images.to(lab.device, memory_format=torch.channels_last), targets
            group = []
        if resized is not None:
            group.append(resized)


def measure_points(bench: Bench, places: Sequence[Place]) -> list[dict[str, Any]]:
    """Points of a `sensitivity.json`; those of one group together, since up to the group their networks are alike."""
    pruned = [prune_one(bench, *place) for place in places]
    models = [model for model, _ in pruned]
    again = [model.network for model, (_, ratio) in zip(models, places, strict=True) if ratio is not None]
    if again:
        reestimate_all(again, (images for images, _ in bench.training_batches))
    for model, facts in pruned:
        fold_batch_norms(model.network, example_input(model).to(bench.lab.device))
        facts["macs"] = macs(model.network, (1, 3, *working_size(bench.lab)))
    losses = map_losses(models, bench.loss_batches)
    scores = scores_of(models, bench.lab, bench.images) if bench.settings.full else [None] * len(models)
    return [{**facts, "loss": loss, "scores": found} for (_, facts), loss, found in zip(pruned, losses, scores, strict=True)]


def prune_one(bench: Bench, group: str | None, ratio: float | None) -> tuple[Model, dict[str, Any]]:
    """The model of a :data:`Place` before its statistics are re-estimated, and what is known of it."""
    settings = bench.settings
    model = bench.model.with_network(copy.deepcopy(bench.model.network))
    found: dict[str, Any] = {}
    if group is not None and ratio is not None:
        chosen = next(one for one in bench.groups if one.name == group)
        left = rounded(chosen.channels * (1 - ratio), chosen.channels, 1)
        removed = least_important([chosen], bench.scores, {group: left})
        remove_channels(model, find_groups(model, settings.scope, settings.protect), removed)
        found = {"group": group, "ratio": ratio, "channels_left": left}
    return model, {**found, "params": parameters(model.network)}


def map_losses(models: Sequence[Model], batches: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> list[float]:
    """For each model the mean over the images of the algorithm's loss, norms in evaluation mode."""
    for model in models:
        show_all_maps(model.network)
    run = together([model.network for model in models])
    algorithm = models[0].algorithm
    losses = [
        [float(algorithm.loss(outputs, targets)[0]) for outputs in run(images, *algorithm.extra(targets))] for images, targets in batches
    ]
    for model in models:
        model.network.eval()
    return np.average(losses, axis=0, weights=[len(images) for images, _ in batches]).tolist()


def scores_of(models: Sequence[Model], lab: Lab, images: Sequence[Sample]) -> list[Scores]:
    """What `Lab.score` gives for each model, whose network must be in evaluation mode."""
    run = together([model.network for model in models])

    def outputs(batch: np.ndarray) -> Outputs:
        """Those of all networks, called `<number>/<name>`."""
        found = run(torch.from_numpy(batch).to(lab.device, memory_format=torch.channels_last))
        return {f"{which}/{name}": tensor.float().cpu().numpy() for which, one in enumerate(found) for name, tensor in one.items()}

    predictor = Predictor(outputs, models[0].algorithm, lab.recipe.evaluate, {}, "torch", "fp32")
    return score(predictor, images, [reader_of(predictor, f"{which}/") for which in range(len(models))])


def reader_of(predictor: Predictor, prefix: str) -> Reader:
    """The predictor's reader, for the outputs whose names begin with `prefix`."""
    read = predictor.reader()
    return lambda outputs, size: read({n.removeprefix(prefix): array for n, array in outputs.items() if n.startswith(prefix)}, size)


def losses_of_score(base: Mapping[str, Any], points: Sequence[Mapping[str, Any]], task: Task) -> list[float]:
    """What each point loses of the main metric against `base`."""
    return [-task.gain(base["scores"], point["scores"]) for point in points]


def sweep(bench: Bench, checkpoint: Path | None, folder: Path, workers: int, done: Callable[[int, int], None]) -> dict[str, Any]:
    """All points, as a `sensitivity.json` holds them. Each is written to `folder` as it is measured, and not measured again.

    checkpoint: where `bench.model` was loaded from, for `workers` processes that each load it; with none, or one worker, all is measured
    here. done: called with how many points there are and are to be.
    """
    path = folder / POINTS
    wanted: list[Place] = [UNPRUNED, REESTIMATED, *((group.name, ratio) for group in bench.groups for ratio in bench.settings.ratios)]
    head = {
        "weights": weights_digest(bench.model.network),
        "settings": asdict(bench.settings),
        "recipe": bench.lab.recipe.model_dump(mode="json", include={"seed", "augment", "evaluate"}),
        "data": [bench.lab.split(name).fingerprint() for name in ("train", "val")],
    }
    head = json.loads(json.dumps(head))
    known = read_points(path, head)
    if not known:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(head) + "\n")
    left = [point for point in wanted if point not in known]
    done(len(wanted) - len(left), len(wanted))
    with path.open("a", encoding="utf-8") as file:
        for place, found in measured(bench, checkpoint, left, workers):
            known[place] = found
            file.write(json.dumps({"at": place, **found}) + "\n")
            file.flush()
            done(len(known), len(wanted))
    return summary(bench, [known[place] for place in wanted])


def read_points(path: Path, head: dict[str, Any]) -> dict[Place, dict[str, Any]]:
    """Points that an earlier call with the same weights and settings has left; a last line that was cut off is not one.

    Raises CompressError for a damaged line.
    """
    if not path.exists():
        return {}
    first, *lines = read_text(path).split("\n")
    if not lines:
        return {}
    begun = parse_json(first, dict[str, Any], f"{path}, line 1")
    if begun != head:
        return {}
    whole = [parse_json(line, PointLine, f"{path}, line {number}") for number, line in enumerate(lines[:-1], 2)]
    for number, point in enumerate(whole, 2):
        if head["settings"]["full"] and not point["scores"]:
            raise CompressError(f"{path}, line {number} is damaged: it has no scores; delete the file to measure anew.")
        if point["at"][0] is not None and point["at"] != (point.get("group"), point.get("ratio")):
            raise CompressError(f"{path}, line {number} is damaged: it says two places; delete the file to measure anew.")
    if lines[-1]:
        write_text(path, "".join(line + "\n" for line in (first, *lines[:-1])))
    return {point["at"]: {name: value for name, value in point.items() if name != "at"} for point in whole}


def measured(bench: Bench, checkpoint: Path | None, places: Sequence[Place], workers: int) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The points at `places`, those of a group together, in the order in which they are ready."""
    tasks = [list(members) for _, members in groupby(places, key=lambda place: place[0])]
    workers = min(workers, len(tasks))
    if workers <= 1 or checkpoint is None:
        for task in tasks:
            yield from zip(task, measure_points(bench, task), strict=True)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    arguments = (checkpoint, bench.lab.recipe, bench.settings, ALLOWED.get())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker, initargs=arguments) as pool:
        futures = {pool.submit(worker_points, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield from zip(futures[future], future.result(), strict=True)
        except BrokenProcessPool:
            told = "a process that measures points was killed, often for lack of memory"
            raise CompressError(f"The sensitivity stopped: {told}; give fewer --workers and run again: it goes on.") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


bench_of_worker: Bench


def start_worker(checkpoint: Path, recipe: RunSettings, settings: Settings, modules: frozenset[str]) -> None:
    """Load what the points need, once for each process, which computes with one thread and allows the same `modules`."""
    global bench_of_worker  # a pool gives its tasks no other way to what the initializer made
    end_with_parent()
    ALLOWED.set(modules)
    torch.set_num_threads(1)
    bench_of_worker = open_bench(checkpoint, recipe, settings)


def worker_points(places: Sequence[Place]) -> list[dict[str, Any]]:
    """:func:`measure_points` in a worker."""
    return measure_points(bench_of_worker, places)


def open_bench(checkpoint: Path, recipe: RunSettings, settings: Settings) -> Bench:
    """A bench on the CPU for the model in a checkpoint folder."""
    from compress.training.devices import keep_freed_memory

    keep_freed_memory()
    lab = Lab(recipe, checkpoint, torch.device("cpu"), no_teacher, quiet=True)
    return Bench(load(checkpoint), lab, settings)


def summary(bench: Bench, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a `sensitivity.json` holds: figures of the model as it is (`unpruned`) and with re-estimated statistics (`baseline`), the
    groups, the points, and how well the fast pass predicted.
    """
    unpruned, base, *rest = points
    settings, evaluation = bench.settings, bench.lab.recipe.evaluate
    drops = losses_of_score(base, rest, bench.lab.task) if settings.full else []
    return {
        "kind": "prune",
        "weights": weights_digest(bench.model.network),
        "task": bench.lab.task.name,
        "main": bench.lab.task.main,
        "split": "val",
        "images": len(bench.images) if settings.full else 0,
        "loss_images": min(settings.loss_images, len(bench.lab.split("val"))),
        "settings": evaluation.reported(bench.model.algorithm),
        "criterion": settings.criterion,
        "seed": bench.lab.recipe.seed,
        "unpruned": unpruned,
        "baseline": base,
        "groups": [{"name": group.name, "members": list(group.members), "channels": group.channels} for group in bench.groups],
        "ratios": list(settings.ratios),
        "points": rest,
        "rank_correlation": rank_correlation([p["loss"] for p in rest], drops) if settings.full else None,
    }
