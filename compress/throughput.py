"""`compress plan --throughput`: whether a training stage's input keeps up with its steps, measured in the training loop itself."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice, repeat
from pathlib import Path
from statistics import median
from typing import Any

import torch

from compress.checkpoint import DESCRIPTION, Model, fresh, load
from compress.cost import parameters
from compress.data.training import TrainingSet, batches
from compress.errors import CompressError, suggestion
from compress.experiment import make_lab, prepare
from compress.lab import Lab
from compress.measure import processor
from compress.outside import allowing
from compress.stages import Stage
from compress.stages.train import Train
from compress.teachers import stage_named
from compress.training.devices import mixed_precision
from compress.training.loop import Batch, Objective, StepHook, nothing, of_one, set_up, train_epoch

Use = Callable[[Iterable[Batch]], None]
ROUNDS, SECONDS = 3, 4.0
# More steps than any stage has: the learning rate stays in its warm-up, and the mean loss is of no interest.
STEPS = 1_000_000


@allowing()
def throughput(
    recipe: str | Path, name: str, overrides: Sequence[str] = (), *, out: str | Path | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Pictures a second of the train stage `name`: `pipeline` (making batches), `step` (training on one that is kept), `together`.

    The three are measured in turn, so that a busy moment of the machine meets them all; the figures are medians over the rounds, and
    `share`, what is left together of the slower of the two, is the median of each round's. Beside it `stage`, `crop`, `batch`, `workers`,
    `params`, `device`, `precision`, `threads` (of torch) and `cpu`. The network is the stage's parent where the experiment has it, else
    the unpruned one. Raises CompressError for a name that is no train stage.
    """
    experiment = replace(prepare(recipe, overrides, out), device=device)
    stage = stage_named(experiment.recipe, name)
    if not isinstance(stage, Train):
        known = [other.name for other in experiment.recipe.stages if isinstance(other, Train)]
        raise CompressError(f"--throughput {name}: the recipe has no train stage of that name{suggestion(name, known)}")
    parent = experiment.recipe.parent(stage)
    trained = experiment.folder / parent if parent else None
    there = trained is not None and (trained / DESCRIPTION).exists()
    model = load(trained) if there else fresh(experiment.recipe.model, experiment.recipe.evaluate)
    lab = make_lab(experiment, experiment.folder, stage)
    rates = measure(model, stage, lab)
    return {
        "stage": name,
        **rates,
        "crop": stage.size(lab.task),
        "batch": stage.batch,
        "workers": stage.workers,
        "params": parameters(model.network),
        "device": str(lab.device),
        "precision": {"no": "fp32"}.get(found := mixed_precision(stage.precision, lab.device), found),
        "threads": torch.get_num_threads(),
        "cpu": processor(),
    }


def measure(model: Model, stage: Train, lab: Lab) -> dict[str, float]:
    """`pipeline`, `step` and `together`, in pictures a second, and `share`. Trains `model` on by what that takes."""
    objective, hooks = stage.lesson(model)
    learn = learner(model, objective, stage, lab, **hooks)
    samples = lab.training_set(stage.size(lab.task))
    new = endless(samples, stage.batch, stage.workers)
    kept = repeat(next(new))
    learn(islice(new, 1))  # memory is mapped, kernels are chosen
    # What workers have made in advance must be used up before their rate shows.
    ahead = 2 * stage.workers
    rounds = []
    for _ in range(ROUNDS):
        pipeline, step = rate(new, drain, ahead), rate(kept, learn, 0)
        together = rate(new, learn, ahead if pipeline < step else 0)
        rounds.append((pipeline, step, together, together / min(pipeline, step)))
    return dict(zip(("pipeline", "step", "together", "share"), map(median, zip(*rounds, strict=True)), strict=True))


def learner(model: Model, objective: Objective, stage: Stage, lab: Lab, after_backward: StepHook = nothing) -> Use:
    """What trains `model` on by the batches that it is given, as the training loop does in `stage`, which is one that trains."""
    run, accelerator = set_up({lab.folder: model}, [], stage, lab)

    def learn(loader: Iterable[Batch]) -> None:
        with lab.bar(stage.name, 0) as bar:
            train_epoch(run, of_one(objective), stage, loader, accelerator, STEPS, bar, lab, after_backward)

    return learn


def endless(samples: TrainingSet, batch: int, workers: int) -> Iterator[Batch]:
    """Batches, epoch after epoch."""
    for epoch in count():
        yield from batches(samples, epoch, batch, workers)


def drain(loader: Iterable[Batch]) -> None:
    """Take batches and do nothing with them."""
    deque(loader, maxlen=0)


def rate(given: Iterator[Batch], use: Use, ahead: int) -> float:
    """Pictures a second that `use` takes from the batches `given`, over `SECONDS` and one batch at least, after `ahead` batches."""
    drain(islice(given, ahead))
    pictures, start = 0, time.perf_counter()

    def in_time() -> Iterator[Batch]:
        nonlocal pictures
        for batch in given:
            pictures += len(batch["image"])
            yield batch
            if time.perf_counter() - start >= SECONDS:
                return

    use(in_time())
    return pictures / (time.perf_counter() - start)
