"""Channels brought to like ranges before they are rounded, without a change of what the network computes.

An activation has one scale a tensor, so its widest channel decides how coarsely all others are rounded. Where nothing but sums, gates,
scalings and ReLUs lies between the layers that write a channel and those that read it, the former can be multiplied by any s > 0 and the
latter divided by it (cross-layer equalization, Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.1). The channels of a
feature pyramid and of residual connections are written and read by many layers: those of a pruning group are scaled together.

The scale is that of SmoothQuant with alpha 0.5 (Xiao et al. 2023, https://arxiv.org/abs/2211.10438, equation 4): with r a channel's highest
absolute activation and w its highest weight in any reader, in relation to the highest of the reader's output channel, s = sqrt(w / r).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from compress.checkpoint import Model
from compress.pruning.attention import Heads
from compress.pruning.groups import Group, find_groups
from compress.quantization.folding import AFFINE, TRANSPOSED, Affine, by_channel
from compress.training.modes import show_all_maps

SMALLEST = 1e-4  # of the highest range or weight: what is smaller is scaled as this
TOLERANCE = 1e-3  # of the highest value: float32 rounds scaled sums differently


@dataclass(frozen=True)
class Reader:
    """A layer that reads channels of a group: `channels` of the group are at `places` of its input."""

    layer: Affine
    places: list[int]
    channels: list[int]


@dataclass(frozen=True)
class Chain:
    """The layers that write the channels of a group, in their order, and those that read them."""

    name: str
    channels: int
    writers: list[Affine]
    readers: list[Reader]

    def layers(self) -> list[Affine]:
        """All of them."""
        return [*self.writers, *(reader.layer for reader in self.readers)]


@torch.no_grad()
def equalize(model: Model, images: Iterable[Tensor]) -> list[str]:
    """Scale, in place, the channels of every group of a float `model` in which that changes nothing; returns the names of these groups.

    images: normalised (1, 3, H, W), at least one, by which ranges are measured. Each group proves itself on the first: what its readers
    are given must be scaled as its writers were, and all maps must stay as they were; else it is left as it was.
    """
    network, scaled = model.network, []
    with torch.enable_grad():
        chains = [chain for group in find_groups(model) if (chain := chain_of(group, network))]
    layers = {layer for chain in chains for layer in chain.layers()}
    look, shown = Look(), list(images)
    for image in shown:
        watched(network, layers, image, look.note)
    for chain in chains:
        writers = [layer for layer in chain.writers if layer in look.maps] or chain.writers
        ranges = highest(chain, writers, look)
        if ranges.max() > 0 and holds(network, chain, writers, factors(chain, ranges), shown[0]):
            scaled.append(chain.name)
    network.eval()
    return scaled


def chain_of(group: Group, network: nn.Module) -> Chain | None:
    """Who writes and who reads the channels of a group; None where that is more than convolutions and linear layers do."""
    if isinstance(group.coupled, Heads):
        return None
    own, every = set(network.modules()), list(range(group.channels))
    writers: list[Affine] = []
    readers: list[Reader] = []
    for item in group.coupled:
        layer = item.dep.target.module
        if layer not in own and not isinstance(layer, nn.Parameter):
            continue  # an operator, which has nothing to scale
        if not isinstance(layer, AFFINE):
            return None
        if item.dep.handler.__name__ == "prune_out_channels":
            if item.idxs != every or not (is_dense(layer) or is_depthwise(layer)):
                return None
            writers.append(layer)
        elif not is_depthwise(layer):
            if not is_dense(layer) or len(item.idxs) != len(item.root_idxs):
                return None
            readers.append(Reader(layer, list(item.idxs), list(item.root_idxs)))
    return Chain(group.name, group.channels, writers, readers) if writers and readers else None


def is_dense(layer: Affine) -> bool:
    """Whether every output channel of the layer reads every input channel."""
    return getattr(layer, "groups", 1) == 1


def is_depthwise(layer: Affine) -> bool:
    """Whether every output channel of the layer reads its own input channel alone, so that a scaled input scales it."""
    return not is_dense(layer) and getattr(layer, "groups", 1) == layer.weight.shape[0] and layer.weight.shape[1] == 1


# What layers are given and give

Note = Callable[[nn.Module, Tensor, Tensor], None]  # called with a layer, its input and its output


def watched(network: nn.Module, layers: Collection[nn.Module], image: Tensor, note: Note) -> dict[str, Tensor]:
    """All maps of an image, those of branches that run in training alone among them; `note` is called at every call of `layers`.

    At once, since an activation may change a layer's output in place.
    """
    handles = [layer.register_forward_hook(lambda layer, given, gives: note(layer, given[0], gives)) for layer in layers]
    show_all_maps(network)
    try:
        return network(image)
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Look:
    """Highest absolute values so far of the channels that layers are given, and of those that they give.

    maps: the layers that give more than one pixel. A gate gives one, which multiplies channels and is part of no sum.
    """

    given: dict[nn.Module, Tensor] = field(default_factory=dict)
    gives: dict[nn.Module, Tensor] = field(default_factory=dict)
    maps: set[nn.Module] = field(default_factory=set)

    def note(self, layer: nn.Module, given: Tensor, gives: Tensor) -> None:
        """One call of a layer."""
        for known, values in ((self.given, given), (self.gives, gives)):
            peaks = by_channel(layer, values).abs().amax(1)
            known[layer] = torch.maximum(known.get(layer, peaks), peaks)
        if gives.dim() < 4 or gives[0, 0].numel() > 1:
            self.maps.add(layer)


# Scales


def highest(chain: Chain, writers: Sequence[Affine], look: Look) -> Tensor:
    """Highest absolute value of each channel of a group: as it is written, and as it is read, which may be a sum."""
    found = torch.zeros(chain.channels)
    for layer in writers:
        if layer in look.gives:
            found = torch.maximum(found, look.gives[layer])
    for reader in chain.readers:
        if reader.layer in look.given:
            found[reader.channels] = torch.maximum(found[reader.channels], look.given[reader.layer][reader.places])
    return found


def factors(chain: Chain, ranges: Tensor) -> Tensor:
    """What each channel of a group is multiplied by, (channels,), all above 0."""
    weights = torch.zeros(chain.channels)
    for reader in chain.readers:
        size = reader.layer.weight.abs().flatten(2).amax(2) if reader.layer.weight.dim() > 2 else reader.layer.weight.abs()
        size = size.T if isinstance(reader.layer, TRANSPOSED) else size  # (outputs, inputs)
        relative = (size / size.amax(1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)).amax(0)
        weights[reader.channels] = torch.maximum(weights[reader.channels], relative[reader.places])
    return (weights.clamp(min=SMALLEST) / ranges.clamp(min=SMALLEST * ranges.max().item())).sqrt()


def holds(network: nn.Module, chain: Chain, writers: Sequence[Affine], scales: Tensor, image: Tensor) -> bool:
    """Scale a group, in place, and say whether that changes no map of an image; if it does, the group is left as it was."""
    readers = {reader.layer for reader in chain.readers}

    def run() -> tuple[dict[str, Tensor], dict[nn.Module, list[Tensor]]]:
        """All maps, and what the readers are given at each call."""
        given: dict[nn.Module, list[Tensor]] = {layer: [] for layer in readers}
        maps = watched(network, readers, image, lambda layer, values, _: given[layer].append(by_channel(layer, values).clone()))
        return maps, given

    parameters = {tensor: tensor.clone() for layer in chain.layers() for tensor in (layer.weight, layer.bias) if tensor is not None}
    maps, given = run()
    scale(writers, chain.readers, scales)
    maps_now, given_now = run()
    proven = all(is_close(maps_now[name].flatten(1), values.flatten(1)) for name, values in maps.items()) and all(
        is_close(after[reader.places], before[reader.places] * scales[reader.channels][:, None])
        for reader in chain.readers
        for after, before in zip(given_now[reader.layer], given[reader.layer], strict=True)
    )
    for tensor, before in () if proven else parameters.items():
        tensor.copy_(before)
    return proven


def scale(writers: Iterable[Affine], readers: Iterable[Reader], scales: Tensor) -> None:
    """Multiply what is written by `scales`, and divide what is read by them, in place."""
    for layer in set(writers):
        if is_dense(layer):
            outputs = layer.weight.movedim(1 if isinstance(layer, TRANSPOSED) else 0, -1)
            outputs *= scales
        if layer.bias is not None:
            layer.bias *= scales
    for reader in readers:
        inputs = reader.layer.weight.movedim(0 if isinstance(reader.layer, TRANSPOSED) else 1, -1)
        inputs[..., reader.places] /= scales[reader.channels]


def is_close(given: Tensor, expected: Tensor) -> bool:
    """Whether every row is, within the rounding of float32."""
    allowed = TOLERANCE * expected.abs().amax(1) + TOLERANCE**2 * expected.abs().max()
    return bool(((given - expected).abs().amax(1) <= allowed).all())
