"""What makes a channel important: torch-pruning's criteria, each given the gradients that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch_pruning as tp
from torch import Tensor

from compress.checkpoint import Model
from compress.pruning.attention import Heads
from compress.pruning.groups import Group
from compress.pruning.recurrent import hidden_channels, lstms_in
from compress.pruning.settings import Criterion
from compress.training.modes import show_all_maps

IMPORTANCE: dict[str, Callable[[], tp.importance.Importance]] = {
    "l1": partial(tp.importance.GroupMagnitudeImportance, p=1),
    "l2": partial(tp.importance.GroupMagnitudeImportance, p=2),
    "group_norm": partial(tp.importance.GroupMagnitudeImportance, p=2, group_reduction="sum", normalizer=None),
    "lamp": partial(tp.importance.LAMPImportance, p=2),
    "bn_scale": tp.importance.BNScaleImportance,
    "fpgm": partial(tp.importance.FPGMImportance, p=2),
    "taylor": tp.importance.GroupTaylorImportance,
    "hessian": tp.importance.GroupHessianImportance,
    "random": tp.importance.RandomImportance,
}
Batches = Iterator[tuple[Tensor, dict[str, Tensor]]]
LOOK_AT_LOSS = ("taylor", "hessian")
# Images whose gradients are taken at once hold at most so many pixels: what a network keeps of them for its gradient is what takes memory.
MOST_PIXELS = 1 << 20


def uncounted(_images: int) -> None:
    """Tells nobody."""


def score_channels(
    model: Model,
    groups: Sequence[Group],
    criterion: Criterion,
    batches: Batches,
    seed: int,
    done: Callable[[int], None] = uncounted,
) -> dict[str, Tensor]:
    """Importance of every channel: group name -> (channels,) float32 on the CPU, the least important lowest.

    batches: (images, targets) for the criteria that look at the loss. done: called with how many more images these have seen.

    `l1`, `l2`: norm of a channel's weights in all members and readers, the mean over them, relative to the group's mean; `group_norm`:
    the sum, not relative (Fang et al. 2023, section 3.3). `lamp`: relative to what is left above it (Lee et al. 2021). `bn_scale`: |gamma|
    (Liu et al. 2017), and the l2 norm in a group without a norm. `fpgm`: distance to the group's other channels (He et al. 2019).
    `taylor`: (gradient x weight)^2 (Molchanov et al. 2019). `hessian`: mean squared gradient x weight^2 (LeCun et al. 1989, Fisher's
    diagonal). `random`: a number from the seed. A hidden channel of an LSTM and a head of attention are scored by all of their weights, as
    the output channel of a linear layer that has them would be.
    """
    torch.manual_seed(seed)
    model.network.zero_grad(set_to_none=True)
    if criterion == "taylor":
        sum_gradients(model, batches, done)
    elif criterion == "hessian":
        mean_squared_gradients(model, batches, done)
    importance, without_norm = IMPORTANCE[criterion](), IMPORTANCE["l2"]()
    scores = {}
    for group in groups:
        given = [(importance(coupled), coupled) for coupled in scored_groups(group)]
        each = [without_norm(coupled) if score is None else score for score, coupled in given]
        scores[group.name] = torch.stack([score.detach().float().cpu() for score in each]).sum(0)
    model.network.zero_grad(set_to_none=True)
    return scores


def scored_groups(group: Group) -> list[tp.dependency.Group]:
    """torch-pruning's groups whose importance is that of a group: of LSTMs and of heads those that stand in for them."""
    if isinstance(group.coupled, Heads):
        return [group.coupled.as_channels()]
    return [hidden_channels(layer) for layer in lstms_in(group.coupled)] or [group.coupled]


def sum_gradients(model: Model, batches: Batches, done: Callable[[int], None]) -> None:
    """Gradients of the algorithm's whole loss, summed over the batches, batch norms in evaluation mode.

    A batch of more than `MOST_PIXELS` is taken in parts: its loss is the mean over its parts, weighted by their images.
    """
    show_all_maps(model.network)
    for images, targets in batches:
        for part, its in parts(images, targets):
            loss, _ = model.algorithm.loss(model.network(part, *model.algorithm.extra(its)), its)
            (loss * (len(part) / len(images))).backward()
            done(len(part))


def parts(images: Tensor, targets: dict[str, Tensor]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """A batch in parts of at most `MOST_PIXELS`, and of one image at least."""
    few = max(1, MOST_PIXELS // (images.shape[-2] * images.shape[-1]))
    for start in range(0, len(images), few):
        yield images[start : start + few], {name: tensor[start : start + few] for name, tensor in targets.items()}


def mean_squared_gradients(model: Model, batches: Batches, done: Callable[[int], None]) -> None:
    """As every parameter's gradient, the mean over images of the square of that image's own."""
    network = model.network
    show_all_maps(network)
    parameters = list(network.parameters())
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    seen = 0
    for images, targets in batches:
        for index in range(len(images)):
            one = {name: tensor[index : index + 1] for name, tensor in targets.items()}
            loss, _ = model.algorithm.loss(network(images[index : index + 1], *model.algorithm.extra(one)), one)
            for square, gradient in zip(squares, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
                if gradient is not None:
                    square.addcmul_(gradient, gradient)
            seen += 1
            done(1)
    for parameter, square in zip(parameters, squares, strict=True):
        parameter.grad = square / max(1, seen)
