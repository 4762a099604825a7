"""Channel groups: layers that can only lose output channels together, found by torch-pruning's dependency graph.

A residual connection adds two layers' outputs, a depthwise convolution keeps a channel for each of its input's: such layers are one
group, which loses channel k everywhere or nowhere. In `y = a(x) + b(x)` with 4 channels, a and b are one group of 4, and removing
channel 2 takes row 2 of both weights and column 2 of whatever reads y.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn

from compress.checkpoint import Model, channels_last, example_input
from compress.errors import CompressError, suggestion
from compress.models.layers import Centres, Detached, KeptWidth, TrainingOnly, Uncoupled, Unrolled
from compress.pruning import centres, recurrent
from compress.pruning.attention import Heads, attention_layers, cut_at_heads
from compress.pruning.recurrent import keeps_hidden, stood_in_for
from compress.training.modes import show_all_maps


@dataclass(frozen=True)
class Group:
    """Layers with common output channels.

    name: the first member's, in the network's order. members: layers whose output channels these are. channels: how many.
    coupled: torch-pruning's group of all the channels, from which importance is read, or the heads of attention.
    unit: outputs of the first member for one channel: 1, but for heads, each of which counts as one channel.
    """

    name: str
    members: tuple[str, ...]
    channels: int
    coupled: tp.dependency.Group | Heads = field(repr=False, compare=False)
    unit: int = 1


def find_groups(model: Model, scope: str = "model", protect: Sequence[str] = ()) -> list[Group]:
    """The groups that may lose channels, in the network's order; see :func:`kept_layers` for those that may not."""
    network = model.network
    example = example_input(model).to(next(network.parameters()).device)
    # verbose would warn, at each call, of the single scales and shifts of PP-LCNetV3, which have no channels
    graph = tp.DependencyGraph().build_dependency(network, example, forward_fn=all_maps, customized_pruners=PRUNERS, verbose=False)
    order = {layer: place for place, (_, layer) in enumerate(prunable(network))}
    names = {layer: name for name, layer in prunable(network)}
    kept = kept_layers(model, scope, protect)
    found, fused = [], []
    for layer in attention_layers(network).values():
        linears = [linear for linear, _ in layer.packed()]
        fused += linears
        if not any(linear in kept for linear in linears):
            unit = width(linears[0]) // layer.heads
            group = Group(names[linears[0]], tuple(names[linear] for linear in linears), layer.heads, Heads(layer), unit)
            found.append((order[linears[0]], group))
    for coupled in graph.get_all_groups(ignored_layers=[*kept, *fused], root_module_types=list(PRUNABLE)):
        layers = {item.dep.target.module for item in coupled if graph.is_out_channel_pruning_fn(item.dep.handler)}
        members = sorted((layer for layer in layers if layer in order), key=order.__getitem__)
        found.append((order[members[0]], Group(names[members[0]], tuple(names[m] for m in members), len(coupled[0].idxs), coupled)))
    network.eval()
    return [group for _, group in sorted(found, key=lambda pair: pair[0])]


def remove_channels(model: Model, groups: Sequence[Group], removed: Mapping[str, Sequence[int]]) -> None:
    """Take channels out of `model.network` in place: group name -> indices. Statistics of the batch norms are then wrong.

    The groups must have been found in this very network and not been used to remove anything before.
    """
    for group in groups:
        indices = [int(index) for index in removed.get(group.name, ())]
        if indices:
            group.coupled.prune(indices)
    model.network.zero_grad(set_to_none=True)
    channels_last(model.network).eval()


def all_maps(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Every map of the algorithm, so that branches which run in training alone are pruned with the rest.

    The graph is cut behind every :class:`Uncoupled`, whose outputs are added as maps, or their inputs would not be seen, and at the heads
    of attention. Products stand in for LSTMs, and two steps for those of every :class:`Unrolled`.
    """
    show_all_maps(network)
    ends: list[Tensor] = []

    def detach(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        ends.append(output)
        return output.detach()

    def attach(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        return inputs[0]

    handles = [module.register_forward_hook(detach) for module in network.modules() if isinstance(module, Uncoupled)]
    handles += [module.register_forward_hook(attach) for module in network.modules() if isinstance(module, Detached)]
    try:
        with stood_in_for(network), two_steps(network), cut_at_heads(network, ends):
            return [*network(images).values(), *ends]
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def two_steps(network: nn.Module) -> Iterator[None]:
    """Until the block ends, every :class:`Unrolled` in `network` has two steps: more show nothing more, and take long to follow."""
    unrolled = [module for module in network.modules() if isinstance(module, Unrolled)]
    steps = [module.steps for module in unrolled]
    for module in unrolled:
        module.steps = min(2, module.steps)
    try:
        yield
    finally:
        for module, number in zip(unrolled, steps, strict=True):
            module.steps = number


def kept_layers(model: Model, scope: str, protect: Sequence[str]) -> list[nn.Module]:
    """Layers whose output channels stay: those that give the maps or are in a module of `WHOLE`, those outside the scope, and those that
    `protect` names.

    Raises CompressError for a pattern that matches no layer, and for a network without a backbone where the scope is one.
    """
    layers = dict(prunable(model.network))
    if scope == "backbone" and not any(name.startswith("backbone.") for name in layers):
        raise CompressError("this model has no `backbone`; use `scope: model`.")
    for pattern in protect:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise CompressError(f"'{pattern}' matches no layer{suggestion(pattern, layers)}")
    kept = (*protect, *model.algorithm.kept)
    whole = {layer for module in model.network.modules() if isinstance(module, WHOLE) for layer in module.modules()}
    return [
        layer
        for name, layer in layers.items()
        if layer in whole
        or keeps_hidden(layer)
        or any(fnmatchcase(name, pattern) for pattern in kept)
        or (scope == "backbone" and not name.startswith("backbone."))
    ]


WHOLE = (Uncoupled, KeptWidth, TrainingOnly)  # what is in them keeps its widths
PRUNERS = {nn.LSTM: recurrent.PRUNER, Centres: centres.PRUNER}  # for what torch-pruning has no rule, or a wrong one
PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear, nn.LSTM)


def prunable(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Layers that have output channels of their own."""
    for name, module in network.named_modules():
        if isinstance(module, PRUNABLE):
            yield name, module


def widths(network: nn.Module) -> dict[str, int]:
    """Output channels of every layer that has some of its own."""
    return {name: width(layer) for name, layer in prunable(network)}


def width(layer: Any) -> int:
    """Output channels of one layer."""
    if isinstance(layer, nn.LSTM):
        return recurrent.PRUNER.get_out_channels(layer)
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)
