"""Training towards group sparsity: whole channel groups shrink together, the weakest channels fastest (Fang et al. 2023, section 3.3).

"DepGraph: Towards any structural pruning", equation 4: R = sum over groups g and channels k of gamma_k ||w_g[k]||^2, where w_g[k] is all
that goes when channel k of g is removed, and gamma_k = 2^(4 (I_max - I_k) / (I_max - I_min)) with I_k = ||w_g[k]||.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compress.checkpoint import Model
from compress.pruning.attention import Heads
from compress.pruning.groups import find_groups

ALPHA = 4.0


@dataclass(frozen=True)
class Part:
    """What one layer's parameter has of a group: its slices `indices` along `dim` are those of channels `channels`."""

    parameter: Tensor
    dim: int
    indices: Tensor
    channels: Tensor


def pull_groups(model: Model, weight: float) -> Callable[[nn.Module, float], None]:
    """A hook after each backward pass that adds the gradient of `weight` / 2 x R to the network's own, gamma held constant."""
    device = next(model.network.parameters()).device
    groups = [(group.channels, parts) for group in find_groups(model) if (parts := parts_of(group.coupled, device))]

    @torch.no_grad()
    def pull(_network: nn.Module, _share: float) -> None:
        for channels, parts in groups:
            slices = [part.parameter.index_select(part.dim, part.indices) for part in parts]
            strength = shrinkage(channel_norms(channels, parts, slices))
            for part, values in zip(parts, slices, strict=True):
                if part.parameter.grad is not None:
                    shape = [1] * values.dim()
                    shape[part.dim] = -1
                    part.parameter.grad.index_add_(part.dim, part.indices, values * strength[part.channels].view(shape), alpha=weight)

    return pull


def channel_norms(channels: int, parts: list[Part], slices: list[Tensor]) -> Tensor:
    """I_k: the norm over all parts of what belongs to each channel, (channels,)."""
    squares = slices[0].new_zeros(channels)
    for part, values in zip(parts, slices, strict=True):
        squares.index_add_(
            0, part.channels, values.movedim(part.dim, 0).flatten(1).square().sum(1) if values.dim() > 1 else values.square()
        )
    return squares.sqrt()


def shrinkage(norms: Tensor) -> Tensor:
    """gamma_k: 1 for the strongest channel, 16 for the weakest; 1 for all where they are equal."""
    spread = norms.max() - norms.min()
    return 2 ** (ALPHA * (norms.max() - norms) / spread.clamp_min(1e-12))


def parts_of(coupled: tp.dependency.Group | Heads, device: torch.device) -> list[Part]:
    """The parameters that lose something with the group: weights of its members and readers, and scales of its norms."""
    if isinstance(coupled, Heads):
        return [
            Part(
                linear.weight, dim, places.flatten().to(device), torch.arange(len(places), device=device).repeat_interleave(places.shape[1])
            )
            for linear, dim, places in coupled.parts()
        ]
    parts = []
    for item in coupled:
        layer, dim = item.dep.target.module, pruned_dim(item.dep.target.module, item.dep.handler)
        if dim is not None and None not in item.root_idxs:
            indices, channels = (torch.tensor(list(values), device=device) for values in (item.idxs, item.root_idxs))
            parts.append(Part(layer.weight, dim, indices, channels))
    return parts


def pruned_dim(layer: nn.Module, handler: Callable) -> int | None:
    """The dimension of the layer's weight that `handler` cuts; None for what has no weight, or shares it among groups of channels."""
    if isinstance(layer, nn.BatchNorm2d):
        return 0
    inputs = handler in (tp.function.prune_conv_in_channels, tp.function.prune_linear_in_channels)
    if isinstance(layer, nn.Linear):
        return int(inputs)
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) or (inputs and layer.groups > 1):
        return None
    return int(inputs) if isinstance(layer, nn.Conv2d) else int(not inputs)
