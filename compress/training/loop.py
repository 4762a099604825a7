"""The training loop: seeded batches in, the best and the last checkpoint out; killed at any moment, it ends in the same weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from compress.checkpoint import DESCRIPTION, Model, load, save
from compress.data.training import batches, normalise
from compress.errors import CompressError
from compress.files import read_lines, write_text
from compress.lab import Lab
from compress.last_resort import killed_worker
from compress.models.contract import Algorithm
from compress.quantization.relative_steps import take_relative_steps
from compress.records import Epoch
from compress.stage_folder import METRICS, STATE, metrics_digest
from compress.training.averaging import start_average, update_average
from compress.training.branches import merged
from compress.training.devices import keep_freed_memory, mixed_precision
from compress.training.frozen import freeze, hold
from compress.training.modes import hold_norms
from compress.training.schedules import lr_factor
from compress.training.settings import Schedule
from compress.training.trackers import tracking

Batch = Mapping[str, Tensor]
Objective = Callable[[nn.Module, Tensor, Batch], tuple[Tensor, dict[str, Tensor]]]
JointObjective = Callable[[Sequence[nn.Module], Tensor, Batch], tuple[Tensor, dict[str, Tensor]]]
# Given the network and the share of the stage's steps that are done, 0 to below 1: what depends on that alone needs no saving to resume.
StepHook = Callable[[nn.Module, float], None]
Log = Callable[[Mapping[str, float]], None]


def nothing(_network: nn.Module, _share: float) -> None:
    """The step hook that does nothing."""


@dataclass
class Student:
    """One of the models that a stage trains, and the folder of its best epoch; its last one goes into `last` below that.

    best: the main metric of the best epoch so far.
    """

    model: Model
    folder: Path
    average: dict[str, Tensor] | None
    best: float | None = None


@dataclass
class Run:
    """Everything that changes while a stage trains.

    modules: as accelerate prepared them, the networks of the students in their order, then what is trained beside them.
    """

    modules: list[nn.Module]
    students: list[Student]
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0


def fit(
    model: Model,
    objective: Objective,
    schedule: Schedule,
    lab: Lab,
    *,
    label: str,
    folder: Path,
    **hooks: StepHook,
) -> Model:
    """Train `model` and leave the best epoch on validation in `folder`, the last in `folder/last`, and `metrics.jsonl`.

    objective: `(network, images, targets) -> (loss, parts)` for one batch; images are normalised (B, 3, height, width).
    hooks: those of :func:`fit_together`, of which this is the case of one network.
    Returns the best model. With an average, it is the average that is evaluated and kept.
    """

    fit_together({folder: model}, [], of_one(objective), schedule, lab, label=label, folder=folder, **hooks)
    return load(folder)


def of_one(objective: Objective) -> JointObjective:
    """An objective of one network for the loop, which knows several."""

    def joint(modules: Sequence[nn.Module], images: Tensor, targets: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return objective(modules[0], images, targets)

    return joint


def own_loss(algorithm: Algorithm) -> Objective:
    """The objective that is the algorithm's own loss."""

    def objective(network: nn.Module, images: Tensor, targets: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return algorithm.loss(network(images, *algorithm.extra(targets)), targets)

    return objective


def fit_together(
    models: Mapping[Path, Model],
    beside: Sequence[nn.Module],
    objective: JointObjective,
    schedule: Schedule,
    lab: Lab,
    *,
    label: str,
    folder: Path,
    after_backward: StepHook = nothing,
) -> None:
    """Train several models on the same batches, each evaluated on its own and left in its folder as :func:`fit` leaves one.

    beside: modules that are trained with them but kept in no checkpoint. folder: where what is needed to resume lies meanwhile.
    objective: as for `fit`, but given all networks, in the order of `models`, and then `beside`.
    after_backward: called at each step for each network, to change its gradients.
    """
    if all((place / "last" / DESCRIPTION).exists() for place in models) and not (folder / STATE).exists():
        return  # finished before the stage was cut off
    for place in (folder, *models):
        place.mkdir(parents=True, exist_ok=True)
    run, accelerator = set_up(models, beside, schedule, lab)
    training_set = lab.training_set(schedule.size(lab.task))
    per_epoch = steps_per_epoch(len(training_set), schedule.batch, accelerator.num_processes)
    resume(run, accelerator, folder)
    total = per_epoch * schedule.epochs * schedule.batch * accelerator.num_processes
    done = run.epoch * (total // schedule.epochs)
    with lab.bar(label, total, done=done) as bar, tracking(lab.recipe.trackers, lab.folder.parent, label, run.epoch) as log:
        while run.epoch < schedule.epochs:
            rank, world = accelerator.process_index, accelerator.num_processes
            loader = batches(training_set, run.epoch, schedule.batch, schedule.workers, rank=rank, world=world)
            losses = train_epoch(run, objective, schedule, loader, accelerator, per_epoch, bar, lab, after_backward)
            run.epoch += 1
            finish_epoch(run, schedule, lab, accelerator, folder, losses, bar, log)
    accelerator.wait_for_everyone()
    (folder / STATE).unlink(missing_ok=True)


def set_up(models: Mapping[Path, Model], beside: Sequence[nn.Module], schedule: Schedule, lab: Lab) -> tuple[Run, Accelerator]:
    """Everything before the first step: precision, device, optimiser and averages. Arguments as for :func:`fit_together`."""
    keep_freed_memory()
    AcceleratorState._reset_state()  # a stage may train in another precision than the one before it
    accelerator = Accelerator(cpu=lab.device.type == "cpu", mixed_precision=mixed_precision(schedule.precision, lab.device))
    for model in models.values():
        freeze(model.network, schedule.freeze)
    modules = [*(model.network for model in models.values()), *beside]
    optimizer = make_optimizer(nn.ModuleList(modules), schedule)
    modules = [accelerator.prepare(module) if list(module.parameters()) else module for module in modules]
    if schedule.relative_steps:
        for model in models.values():
            take_relative_steps(optimizer, model.network)
    students = [Student(model, place, start_average(model.network) if schedule.ema else None) for place, model in models.items()]
    return Run(modules, students, accelerator.prepare(optimizer)), accelerator


def steps_per_epoch(samples: int, batch: int, processes: int) -> int:
    """Full batches in one epoch, at least one."""
    return max(1, samples // (batch * processes))


def make_optimizer(network: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """The optimiser over all weights; norms, biases and scalars are not decayed."""
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in wanted if p.dim() > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in wanted if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum, nesterov=schedule.momentum > 0)
    if schedule.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=schedule.lr)
    return torch.optim.AdamW(groups, lr=schedule.lr)


def train_epoch(
    run: Run,
    objective: JointObjective,
    schedule: Schedule,
    loader: Iterable[Batch],
    accelerator: Accelerator,
    per_epoch: int,
    bar: Any,
    lab: Lab,
    after_backward: StepHook,
) -> dict[str, float]:
    """One epoch over the batches of `loader`; returns the mean, by `per_epoch`, of the loss and of each of its parts."""
    torch.manual_seed((lab.recipe.seed * 1_000_003 + run.epoch) % 2**63)
    for module in run.modules:
        module.train()
    for student in run.students:
        hold(student.model.network, schedule.freeze)
    steps, milestones = per_epoch * schedule.epochs, [epoch * per_epoch for epoch in schedule.milestones]
    warmup = int(schedule.warmup * per_epoch)
    factor = partial(lr_factor, steps=steps, warmup_steps=warmup, decay=schedule.decay, milestones=milestones, gamma=schedule.gamma)
    sums: dict[str, Tensor] = {}
    for batch in loader:
        set_lr(run.optimizer, schedule.lr * factor(step=run.step))
        batch = {name: tensor.to(accelerator.device, non_blocking=True) for name, tensor in batch.items()}
        images = normalise(batch.pop("image"), lab.mean_std)
        if run.step >= schedule.freeze_norms * steps:
            for student in run.students:
                hold_norms(student.model.network)
        with accelerator.autocast():
            loss, parts = objective(run.modules, images, batch)
        accelerator.backward(loss)
        for student in run.students:
            after_backward(student.model.network, run.step / steps)
            if schedule.sparsity:
                pull_scales_to_zero(student.model.network, schedule.sparsity)
            if schedule.clip:
                accelerator.clip_grad_norm_(student.model.network.parameters(), schedule.clip)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.step += 1
        for student in run.students:
            if student.average is not None:
                update_average(student.average, student.model.network, decay=schedule.ema, step=run.step)
        for name, value in {"loss": loss.detach(), **parts}.items():
            sums[name] = sums.get(name, 0) + value
        bar.advance(len(images) * accelerator.num_processes, f"epoch {run.epoch + 1}/{schedule.epochs}")
    means = {name: float(value) / per_epoch for name, value in sums.items()}
    if not torch.isfinite(torch.tensor(means["loss"])):
        raise CompressError(
            f"The loss of '{bar.label}' is not finite in epoch {run.epoch + 1}; lower its lr, or set clip, and run again: it resumes."
        )
    return means


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same learning rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def pull_scales_to_zero(network: nn.Module, weight: float) -> None:
    """Add the subgradient of `weight * sum |gamma|` over all batch norms (Liu et al. 2017, equation 1)."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.weight.grad is not None:
            module.weight.grad.add_(module.weight.detach().sign(), alpha=weight)


def finish_epoch(
    run: Run, schedule: Schedule, lab: Lab, accelerator: Accelerator, folder: Path, losses: dict[str, float], bar: Any, log: Log
) -> None:
    """Evaluate where it is due, keep the best and the last, write the metrics and what is needed to go on from here."""
    last = run.epoch == schedule.epochs
    due = last or run.epoch % schedule.evaluate_every == 0
    if accelerator.is_main_process:
        entry: dict[str, Any] = {"epoch": run.epoch, "lr": run.optimizer.param_groups[0]["lr"], **losses}
        logged = dict(entry)
        if due:
            scores = [evaluate_student(student, lab, entry, last=last) for student in run.students]
            shown = " and ".join(lab.task.metric.shown(score[f"val_{lab.task.main}"]) for score in scores)
            bar.say(f"epoch {run.epoch}/{schedule.epochs}, loss {losses['loss']:.3f}, validation {lab.task.metric.heading} {shown}")
            several = len(run.students) > 1
            for student, score in zip(run.students, scores, strict=True):
                logged |= {f"{student.folder.name}/{name}" if several else name: value for name, value in score.items()}
        else:
            for student in run.students:
                write_metrics(student.folder / METRICS, entry)
        log(logged)
        if not last:
            save_state(run, accelerator, folder)
            lab.note_elapsed()
    accelerator.wait_for_everyone()


def evaluate_student(student: Student, lab: Lab, entry: dict[str, Any], *, last: bool) -> dict[str, float]:
    """The scores on validation, which go into the metrics with `entry`; the best epoch and the `last` one are saved."""
    current = snapshot(student.model, student.average)
    found = lab.evaluate(current, "val")
    if student.best is None or lab.task.metric.gain(student.best, found[lab.task.main]) > 0:
        student.best = found[lab.task.main]
        save(current, student.folder)
    scores = {f"val_{name}": value for name, value in found.items()}
    write_metrics(student.folder / METRICS, {**entry, **scores})
    if last:  # after all else: where it lies, a run that was cut off takes the training for finished
        save(current, student.folder / "last")
    return scores


def snapshot(model: Model, average: dict[str, Tensor] | None) -> Model:
    """The model to evaluate and keep: itself as it is, or a copy of it with the averaged weights; branches merged."""
    if average is None:
        return model.with_network(merged(model.network), model.quantization)
    averaged = copy.deepcopy(model.network)
    averaged.load_state_dict(average)
    return model.with_network(merged(averaged), model.quantization)


def write_metrics(path: Path, entry: dict[str, Any]) -> None:
    """Append one epoch; entries of epochs that are being done again after a kill are dropped first."""
    kept = [known for known in read_lines(path, Epoch) if known["epoch"] < entry["epoch"]]
    write_text(path, "".join(json.dumps(line) + "\n" for line in [*kept, entry]))


def save_state(run: Run, accelerator: Accelerator, folder: Path) -> None:
    """Everything needed to go on after this epoch, under a temporary name until it is whole."""
    state = {
        "modules": [accelerator.unwrap_model(module).state_dict() for module in run.modules],
        "optimizer": run.optimizer.state_dict(),
        "averages": [student.average for student in run.students],
        "best": [student.best for student in run.students],
        "progress": {"epoch": run.epoch, "step": run.step},
        "metrics": {
            (student.folder / METRICS).relative_to(folder).as_posix(): metrics_digest(student.folder / METRICS, run.epoch)
            for student in run.students
        },
    }
    temporary = folder / (STATE + ".tmp")
    try:
        torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        if killed_worker(error):
            raise
        raise CompressError(f"{folder / STATE} cannot be written ({error}); free some disk space and run again: it resumes.") from None
    temporary.replace(folder / STATE)


def resume(run: Run, accelerator: Accelerator, folder: Path) -> None:
    """Go on from the last whole epoch, if there is one."""
    path = folder / STATE
    if not path.exists():
        return
    # Of several processes each has a processor `cpu:<rank>`, a name that torch.load does not know.
    device = "cpu" if accelerator.device.type == "cpu" else accelerator.device
    state = torch.load(path, map_location=device, weights_only=True)
    for module, weights in zip(run.modules, state["modules"], strict=True):
        accelerator.unwrap_model(module).load_state_dict(weights)
    run.optimizer.load_state_dict(state["optimizer"])
    for student, average, best in zip(run.students, state["averages"], state["best"], strict=True):
        student.average, student.best = average, best
    run.epoch, run.step = state["progress"]["epoch"], state["progress"]["step"]
