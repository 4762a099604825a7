"""Which channels go: torch-pruning's dependency graph, fed with all maps of the algorithm, and guarded."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compress.checkpoint import Model, channels_last, example_input
from compress.data.training import TrainingSet
from compress.errors import CompressError, suggestion
from compress.lab import Lab
from compress.pruning.batch_norm import first_batches
from compress.training.modes import show_all_maps

if TYPE_CHECKING:
    from compress.stages.prune import Prune

IMPORTANCE = {
    "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "bn_scale": lambda: tp.importance.BNScaleImportance(),
    "fpgm": lambda: tp.importance.FPGMImportance(p=2),
    "taylor": lambda: tp.importance.GroupTaylorImportance(),
    "random": lambda: tp.importance.RandomImportance(),
}


def prune(model: Model, stage: Prune, samples: TrainingSet, lab: Lab) -> None:
    """Remove channels from `model.network` in place, as `stage` says. Statistics of the batch norms are then wrong: re-estimate them."""
    network = model.network.to(lab.device)
    torch.manual_seed(lab.recipe.seed)
    pruner = tp.pruner.BasePruner(
        network,
        example_input(model).to(lab.device),
        importance=IMPORTANCE[stage.criterion](),
        global_pruning=stage.allocation == "global",
        pruning_ratio=stage.ratio,
        max_pruning_ratio=stage.max_ratio if stage.allocation == "global" else 1.0,
        ignored_layers=kept_layers(model, stage.scope, stage.protect),
        round_to=stage.round_to,
        forward_fn=all_maps,
    )
    if stage.criterion == "taylor":
        accumulate_gradients(model, samples, stage, lab)
    pruner.step()
    network.zero_grad(set_to_none=True)
    channels_last(network).eval()


def all_maps(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Every map of the algorithm, so that branches which run in training alone are pruned with the rest."""
    show_all_maps(network)
    return list(network(images).values())


def accumulate_gradients(model: Model, samples: TrainingSet, stage: Prune, lab: Lab) -> None:
    """Gradients of the algorithm's whole loss, summed over the stage's batches, batch norms in evaluation mode."""
    network = model.network
    network.zero_grad(set_to_none=True)
    show_all_maps(network)
    for images, targets in first_batches(samples, stage.batch, stage.batches, lab):
        loss, _ = model.algorithm.loss(network(images), targets)
        loss.backward()


def kept_layers(model: Model, scope: str, protect: tuple[str, ...]) -> list[nn.Module]:
    """Layers whose output channels stay: those that give the maps, those outside the scope, and those that `protect` names.

    Raises CompressError for a pattern that matches no layer, and for a network without a backbone where the scope is one.
    """
    layers = dict(prunable(model.network))
    if scope == "backbone" and not any(name.startswith("backbone.") for name in layers):
        raise CompressError("this model has no `backbone`; use `scope: model`.")
    for pattern in protect:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise CompressError(f"'{pattern}' matches no layer{suggestion(pattern, layers)}")
    kept = (*protect, *model.algorithm.map_layers)
    return [
        layer
        for name, layer in layers.items()
        if any(fnmatchcase(name, pattern) for pattern in kept) or (scope == "backbone" and not name.startswith("backbone."))
    ]


def prunable(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers that have output channels of their own."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            yield name, module


def widths(network: nn.Module) -> dict[str, int]:
    """Output channels of every layer that has some of its own."""
    return {name: getattr(layer, "out_channels", None) or layer.out_features for name, layer in prunable(network)}
