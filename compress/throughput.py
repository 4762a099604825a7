"""`compress plan --throughput`: whether a training stage's input keeps up with its steps, measured in the training loop itself."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice, repeat
from pathlib import Path
from statistics import median
from typing import Any

import torch

from compress.checkpoint import DESCRIPTION, Model, fresh, load
from compress.cost import parameters
from compress.data.training import TrainingSet, batches
from compress.errors import CompressError, suggestion
from compress.lab import Lab
from compress.outside import allowing
from compress.processes import device_name
from compress.runtimes.processor import processor
from compress.session import make_lab, prepare, stage_named
from compress.stages.train import Train
from compress.training.devices import mixed_precision
from compress.training.loop import Batch, Objective, StepHook, nothing, of_one, set_up, train_epoch
from compress.training.settings import Schedule

Use = Callable[[Iterable[Batch]], None]
ROUNDS, SECONDS = 3, 4.0
# More steps than any stage has: the learning rate stays in its warm-up, and the mean loss is of no interest.
STEPS = 1_000_000


@allowing()
def throughput(
    recipe: str | Path, name: str, overrides: Sequence[str] = (), *, out: str | Path | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Images a second of the train stage `name`: `pipeline` (making batches), `step` (training on one that is kept), `together`.

    The three are measured in turn, so that a busy moment of the machine meets them all; the figures are medians over the rounds, and
    `share`, what is left together of the slower of the two, is the median of each round's. Beside it `stage`, `crop`, `batch`, `workers`,
    `params`, `device`, `precision`, `threads` (of torch) and `cpu`. The network is the stage's parent where the experiment has it, else
    the unpruned one. Raises CompressError for a name that is no train stage.
    """
    session = prepare(recipe, overrides, out, quiet=True)
    stage = stage_named(session.recipe, name)
    if not isinstance(stage, Train):
        known = [other.name for other in session.recipe.stages if isinstance(other, Train)]
        raise CompressError(f"--throughput {name}: the recipe has no train stage of that name{suggestion(name, known)}")
    parent = session.recipe.parent(stage)
    trained = session.folder / parent if parent else None
    model = load(trained) if trained and (trained / DESCRIPTION).exists() else fresh(session.recipe.model, session.recipe.evaluate)
    lab = make_lab(session, session.folder, stage, device_name(device))
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
    """`pipeline`, `step` and `together`, in images a second, and `share`. Trains `model` on by what that takes."""
    model.network.to(lab.device)
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


def learner(model: Model, objective: Objective, schedule: Schedule, lab: Lab, after_backward: StepHook = nothing) -> Use:
    """What trains `model` on by the batches that it is given, as the training loop does by `schedule`."""
    run, accelerator = set_up({lab.folder: model}, [], schedule, lab)

    def learn(loader: Iterable[Batch]) -> None:
        with lab.bar(lab.name, 0) as bar:
            train_epoch(run, of_one(objective), schedule, loader, accelerator, STEPS, bar, lab, after_backward)

    return learn


def endless(samples: TrainingSet, batch: int, workers: int) -> Iterator[Batch]:
    """Batches, epoch after epoch."""
    for epoch in count():
        yield from batches(samples, epoch, batch, workers)


def drain(loader: Iterable[Batch]) -> None:
    """Take batches and do nothing with them."""
    deque(loader, maxlen=0)


def rate(given: Iterator[Batch], use: Use, ahead: int) -> float:
    """Images a second that `use` takes from the batches `given`, over `SECONDS` and one batch at least, after `ahead` batches."""
    drain(islice(given, ahead))
    images, start = 0, time.perf_counter()

    def in_time() -> Iterator[Batch]:
        nonlocal images
        for batch in given:
            images += len(batch["image"])
            yield batch
            if time.perf_counter() - start >= SECONDS:
                return

    use(in_time())
    return images / (time.perf_counter() - start)
