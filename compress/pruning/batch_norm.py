"""Batch-norm statistics after channels are gone: without new ones a pruned detector finds next to nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, nn

from compress.data.prepare import normalise
from compress.data.training import TrainingSet, batches
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


def first_batches(samples: TrainingSet, batch: int, count: int, lab: Lab) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """`count` batches of (normalised images, float targets) on the lab's device, over as many seeded epochs as that takes."""
    given = epoch = 0
    while given < count:
        for tensors in batches(samples, epoch, batch, 0):
            moved = {name: tensor.to(lab.device) for name, tensor in tensors.items()}
            yield normalise(moved.pop("image"), lab.model_mean_std), {name: tensor.float() for name, tensor in moved.items()}
            given += 1
            if given == count:
                return
        epoch += 1
