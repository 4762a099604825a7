"""Batch-norm statistics after channels are gone: without new ones a pruned detector finds next to nothing."""

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
    """A copy whose batch norms have the statistics of `batches`, to be cut as `network` is and given to :func:`move_statistics`."""
    copied = copy.deepcopy(network)
    reestimate(copied, batches)
    return copied


@torch.no_grad()
def move_statistics(network: nn.Module, before: nn.Module, batches: Iterable[Tensor]) -> None:
    """Move every running mean, and scale every running variance, of a network that lost channels by what the loss has done to them.

    before: :func:`observed` of the network before the cut, cut in the same way; batches: the same. Where the network's statistics are those
    of its batches, this is :func:`reestimate`. Where they are not, as in a detector that was trained on other pictures or with held
    statistics, the network keeps what it has learnt to count on: re-estimation alone may cost more than the cut does.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    reestimate(network, batches)
    seen = [module for module in before.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm, (mean, variance), old in zip(norms, kept, seen, strict=True):
        norm.running_mean += mean - old.running_mean
        norm.running_var.add_(norm.eps).mul_(variance / (old.running_var + norm.eps))


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
