"""Batch norm statistics after pruning. With the old ones a pruned network is nearly useless: its layers see other values than before."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from compress.data.training import TrainingSet, batches, normalise
from compress.lab import Lab
from compress.pruning.together import together


def reestimate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace every running mean and variance by the plain average over `batches` of normalised (B, 3, H, W) images."""
    reestimate_all([network], batches)


def reestimate_all(networks: Sequence[nn.Module], batches: Iterable[Tensor]) -> None:
    """:func:`reestimate` of several networks of one architecture, which share the work on what they have in common."""
    norms = [module for network in networks for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    for network in networks:
        network.train()
    run = together(networks)
    for images in batches:
        run(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for network in networks:
        network.eval()


def observed(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy of `network` whose batch norms have the statistics of `batches`.

    Prune it like `network`, then give it to :func:`move_statistics`.
    """
    copied = copy.deepcopy(network)
    reestimate(copied, batches)
    return copied


@torch.no_grad()
def move_statistics(network: nn.Module, before: nn.Module, batches: Iterable[Tensor]) -> None:
    """Correct the statistics of a pruned `network` by the change that pruning made: means are shifted, variances are scaled.

    For each batch norm, mean += mean_after - mean_before and variance *= variance_after / variance_before, where "after" is measured on
    `batches` with the pruned network and "before" with the unpruned one.

    before: the network of :func:`observed`, pruned like `network`. batches: the same as there.
    If the network's statistics came from the same data, the result equals :func:`reestimate`. If they did not (the detector was trained
    on other images, or with held norms), the correction keeps them, while re-estimation alone can cost more than the pruning.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [tuple(tensor.clone() for tensor in statistics(norm)) for norm in norms]
    reestimate(network, batches)
    seen = [module for module in before.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm, (mean, variance), old in zip(norms, kept, seen, strict=True):
        (new_mean, new_variance), (old_mean, old_variance) = statistics(norm), statistics(old)
        new_mean += mean - old_mean
        new_variance.add_(norm.eps).mul_(variance / (old_variance + norm.eps))


def statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and variance, the buffers themselves. Raises ValueError for a norm without."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("the network has a batch norm without running statistics")
    return norm.running_mean, norm.running_var


def first_batches(samples: TrainingSet, batch: int, count: int, lab: Lab) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """`count` batches of (normalised images, targets) on the lab's device, over as many seeded epochs as that takes."""
    given = epoch = 0
    while given < count:
        for tensors in batches(samples, epoch, batch, 0):
            moved = {name: tensor.to(lab.device) for name, tensor in tensors.items()}
            yield normalise(moved.pop("image"), lab.mean_std), moved
            given += 1
            if given == count:
                return
        epoch += 1
