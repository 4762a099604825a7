"""What can be taken out of a network without changing an output, and the proof that nothing has changed.

- Sides of kernels that see nothing but padding. On a map of one row the outer rows of a 3x3 kernel are always multiplied with zeros: the
  kernel is a 1x3 one. That holds for the heights that images have, so it is found on images.
- Channels that are the same number everywhere, whatever the image. What reads them gets `weight x number` added to its bias instead.
- Batch norms that compute what they are given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.checkpoint import Model, example_input, narrow_kernel
from compress.errors import CompressError
from compress.models.layers import running_statistics
from compress.pruning.attention import Heads
from compress.pruning.groups import Group, find_groups, remove_channels
from compress.quantization.folding import BatchNorm, foldable_pairs
from compress.training.modes import show_all_maps

NEGLIGIBLE = 1e-6  # of the largest value of a map: a channel that varies by less is constant
READERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
THROUGH = (*READERS, nn.BatchNorm2d)  # layers in a group whose channels may go; a layer norm's outputs depend on all of its channels


@dataclass
class Seen:
    """What a layer was given: lowest and highest value of each channel, and the heights of the maps."""

    low: Tensor
    high: Tensor
    heights: set[int]

    @property
    def largest(self) -> float:
        """The largest magnitude of all channels."""
        return max(float(self.high.max()), -float(self.low.min()))

    def constant(self) -> Tensor:
        """(C,) bool, the channels that were one number."""
        return self.high - self.low <= NEGLIGIBLE * self.largest

    def value(self) -> Tensor:
        """(C,) that number, of those that were one."""
        return (self.low + self.high) / 2


Inputs = Mapping[nn.Module, Seen]


def simplify(
    model: Model, images: Callable[[], Iterable[Tensor]], proof: Callable[[], Iterable[Tensor]], tolerance: float, silent: bool = False
) -> dict[str, Any]:
    """Simplify `model.network` in place, and prove it; returns what went, and the largest difference.

    images, proof: normalised (1, 3, H, W) images, those on which constants are found, and others on which outputs are compared.
    tolerance: of the largest difference in any map of training or inference, as a share of the largest magnitude in that map. Constants are
    found, and both networks are computed, in double precision, so that it is no rounding. What the new biases' own rounding to single
    precision changes, by which the outputs of deep networks move a few millionths, is `rounding` beside it.
    silent: see :func:`dead_channels`.
    Raises CompressError where more has changed.
    """
    before, parameters = in_double(model.network), count(model.network)
    identities = drop_identities(model.network)
    seen = observed(model, images())
    kernels = shorten_kernels(model.network, seen)
    channels = remove_dead(model, seen, silent)
    exact = in_double(model.network)
    model.network.float()
    difference, name = largest_difference(before, exact, proof())
    facts = {"kernels": kernels, "channels": channels, "identities": identities, "parameters": [parameters, count(model.network)]}
    if not difference <= tolerance:
        raise CompressError(
            f"map '{name}' has changed by {difference:.2g} of its largest value, and {tolerance:g} is allowed; {told(facts)} would have "
            "gone: raise `images`, so that fewer channels look constant."
        )
    rounding, _ = largest_difference(before, in_double(model.network), proof())
    return {**facts, "difference": difference, "rounding": rounding}


def told(facts: Mapping[str, Any]) -> str:
    """What went, in words."""
    channels = sum(facts["channels"].values())
    return f"{len(facts['kernels'])} kernel(s) in part, {channels} channel(s), {len(facts['identities'])} batch norm(s)"


def count(network: nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def in_double(network: nn.Module) -> nn.Module:
    """A copy that computes in double precision."""
    return copy.deepcopy(network).double()


@torch.no_grad()
def largest_difference(before: nn.Module, after: nn.Module, images: Iterable[Tensor]) -> tuple[float, str]:
    """The largest difference in any map, as a share of the map's largest magnitude on the image, and the map's name."""
    worst = (0.0, "")
    for network in (before, after):
        show_all_maps(network)
    for image in images:
        old, new = before(image.double()), after(image.double())
        for name, values in old.items():
            difference = (values - new[name]).abs().max() / values.abs().max().clamp(min=1e-30)
            worst = max(worst, (float(difference.nan_to_num(nan=torch.inf)), name))
    return worst


@torch.no_grad()
def observed(model: Model, images: Iterable[Tensor]) -> dict[nn.Module, Seen]:
    """What every convolution and linear layer was given on `images`, and on an image of the usual size, for its heights alone; computed in
    double precision.
    """
    seen: dict[nn.Module, Seen] = {}

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given = inputs[0]
        rows = given.movedim(1, -1).flatten(0, -2) if given.dim() == 4 else given.flatten(0, -2)
        low, high = rows.amin(0), rows.amax(0)
        known = seen.get(layer, Seen(low, high, set()))
        seen[layer] = Seen(
            known.low.minimum(low), known.high.maximum(high), known.heights | ({given.shape[2]} if given.dim() == 4 else set())
        )

    network = model.network
    handles = [layer.register_forward_pre_hook(watch) for layer in network.modules() if isinstance(layer, READERS)]
    show_all_maps(network.double())
    try:
        for image in images:
            network(image.double())
        network(example_input(model).double())
    finally:
        for handle in handles:
            handle.remove()
        network.float().eval()
    return seen


def drop_identities(network: nn.Module) -> list[str]:
    """Replace batch norms that give what they are given; returns their names."""
    found = [name for name, module in network.named_modules() if isinstance(module, BatchNorm) and is_identity(module)]
    for name in found:
        network.set_submodule(name, nn.Identity())
    return found


def is_identity(norm: BatchNorm) -> bool:
    """Whether scale and shift of a norm, as it is at inference, are 1 and 0."""
    mean, variance = running_statistics(norm)
    scale = norm.weight.double() * (variance.double() + norm.eps).rsqrt()
    shift = norm.bias.double() - mean.double() * scale
    return bool(((scale - 1).abs() < 1e-7).all() and (shift.abs() < 1e-7).all())


@torch.no_grad()
def shorten_kernels(network: nn.Module, seen: Inputs) -> dict[str, list[int]]:
    """Take rows off kernels that only ever see padding, as many above as below; layer -> height of its kernel before and after."""
    shortened = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and layer in seen:
            unseen = min(unseen_rows(layer, height) for height in seen[layer].heights)
            if unseen:
                rows = layer.kernel_size[0]
                shortened[name] = [rows, rows - 2 * unseen]
                weight = layer.weight[:, :, unseen : rows - unseen]
                narrow_kernel(layer, weight.shape)
                layer.weight.copy_(weight)
    return shortened


def unseen_rows(layer: nn.Conv2d, height: int) -> int:
    """How many rows at either end of a convolution's kernel see nothing but padding on a map of `height` rows."""
    (rows, _), (stride, _), padding = layer.kernel_size, layer.stride, layer.padding
    if isinstance(padding, str) or layer.dilation[0] != 1 or rows % 2 == 0:
        return 0
    places = range((height + 2 * padding[0] - rows) // stride + 1)
    useful = [row for row in range(rows) if any(0 <= place * stride + row - padding[0] < height for place in places)]
    return max(0, min(useful[0], rows - 1 - useful[-1], padding[0])) if useful else 0


def remove_dead(model: Model, seen: Inputs, silent: bool) -> dict[str, int]:
    """Remove the channels of :func:`dead_channels`; group -> how many."""
    groups = find_groups(model)  # needs gradients
    with torch.no_grad():
        removed = {group.name: dead for group, dead in folded(model, groups, seen, silent)}
    remove_channels(model, groups, removed)
    return {name: len(dead) for name, dead in removed.items()}


def folded(model: Model, groups: Sequence[Group], seen: Inputs, silent: bool) -> Iterator[tuple[Group, list[int]]]:
    """The groups with dead channels, and which these are, their constants added to the biases of what reads them."""
    norms = dict(foldable_pairs(model.network, example_input(model)))
    layers = dict(model.network.named_modules())
    for group in groups:
        readers = readers_of(group)
        dead = dead_channels(group, readers, [(layers[name], norms.get(layers[name])) for name in group.members], seen, silent)
        if dead:
            for layer, places in readers:
                fold_constants(layer, [places[channel] for channel in dead if channel in places], seen[layer])
            yield group, dead


def readers_of(group: Group) -> list[tuple[Any, dict[int, int]]]:
    """The layers that read a group's channels, each with channel -> its place in the layer's input; none where the channels must stay."""
    if isinstance(group.coupled, Heads):
        return []
    items = list(group.coupled)
    modules = [item.dep.target.module for item in items]
    if any(isinstance(module, nn.Module) and not isinstance(module, THROUGH) and list(module.parameters()) for module in modules):
        return []
    reads = [(item, module) for item, module in zip(items, modules, strict=True) if "in_channels" in item.dep.handler.__name__]
    return [(module, dict(zip(item.root_idxs, item.idxs, strict=True))) for item, module in reads]


def dead_channels(
    group: Group, readers: Sequence[tuple[Any, Mapping[int, int]]], members: Sequence[tuple[Any, Any]], seen: Inputs, silent: bool
) -> list[int]:
    """The channels that every reader of the group was given as one number on all images, and one of whose members can give nothing else.

    members: layers that have the channels as outputs, each with the batch norm behind it, if any. A member can give but one number where
    its weights are so small that no input as large as those that were seen makes a difference. A ReLU that let nothing through on these
    images is not enough, as on others it may, unless `silent`. One channel is left of a group.
    """
    if not readers or any(layer not in seen for layer, _ in readers):
        return []
    largest = max(seen[layer].largest for layer, _ in readers)
    mute = torch.zeros(group.channels, dtype=torch.bool)
    for layer, norm in members:
        if layer in seen:
            mute |= reach(layer, norm) * 2 * seen[layer].largest <= NEGLIGIBLE * largest
    found = []
    for channel in range(group.channels):
        places = [(layer, place[channel]) for layer, place in readers if channel in place]
        if places and (silent or mute[channel]) and all(removable(layer, place, seen[layer]) for layer, place in places):
            found.append(channel)
    return found[: group.channels - 1]


def reach(layer: Any, norm: Any) -> Tensor:
    """(C,) how far each output of a layer and its norm can be from what it is for an input of zeros, for inputs in -1..1."""
    weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
    sums = weight.abs().flatten(1).sum(1)
    if norm is None:
        return sums
    return sums * norm.weight.abs() * (running_statistics(norm)[1] + norm.eps).rsqrt()


def removable(layer: Any, place: int, seen: Seen) -> bool:
    """Whether one channel of a layer's input was constant, and what the layer makes of it is one number too.

    Where a kernel reaches into the padding, or a transposed one has several places, that is so of zero alone.
    """
    if not bool(seen.constant()[place]):
        return False
    everywhere_alike = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and not any(layer.padding) and layer.groups == 1)
    return everywhere_alike or abs(float(seen.value()[place])) <= NEGLIGIBLE * seen.largest


def fold_constants(layer: Any, places: Sequence[int], seen: Seen) -> None:
    """Add to a layer's bias what it makes of the constant channels at `places` of its input, in place; it is in double then."""
    if isinstance(layer, nn.ConvTranspose2d) or (isinstance(layer, nn.Conv2d) and any(layer.padding)):
        return  # they are zero
    taken = layer.weight[:, places].double().flatten(2).sum(2) if layer.weight.dim() == 4 else layer.weight[:, places].double()
    constant = taken @ seen.value()[places].double()
    layer.bias = nn.Parameter(constant if layer.bias is None else layer.bias.double() + constant)
