"""Attention with several heads loses whole heads.

Of attention with 2 heads of 3 channels, whose queries, keys and values one layer gives, head 1 is the rows 3 to 5, 9 to 11 and 15 to 17 of
that layer, and the columns 3 to 5 of the projection behind it. A head is scored by all of these weights. Single channels of heads stay:
channel 2 of one head has nothing to do with channel 2 of another, and all heads must be of one size.

torch-pruning 1.6.1 would keep all channels between the two layers: while it finds the graph, this is cut there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compress.models.multihead import MultiHead
from compress.pruning.recurrent import of_rows


@dataclass(frozen=True)
class Heads:
    """Stands for torch-pruning's group of channels where these are the heads of one layer."""

    layer: MultiHead

    def prune(self, heads: Sequence[int]) -> None:
        """Take heads out of the layer in place."""
        kept = sorted(set(range(self.layer.heads)) - set(heads))
        for linear, dim, places in list(self.parts()):
            lost = sorted(set(range(linear.weight.shape[dim])) - set(places[kept].flatten().tolist()))
            (tp.prune_linear_in_channels if dim else tp.prune_linear_out_channels)(linear, lost)

    def parts(self) -> Iterator[tuple[nn.Linear, int, Tensor]]:
        """Each linear layer that has channels of heads, the dimension of its weight that is theirs, and (heads, n) their places there."""
        heads, size = self.layer.heads, self.layer.size
        for linear, parts in self.layer.packed():
            yield linear, 0, torch.arange(parts * heads * size).reshape(parts, heads, size).transpose(0, 1).flatten(1)
        yield self.layer.proj, 1, torch.arange(heads * size).reshape(heads, size)

    def by_head(self, values: Callable[[Tensor], Tensor]) -> Tensor:
        """(heads, n): all that `values` gives for the weights and biases which go with each head."""
        rows = []
        for linear, dim, places in self.parts():
            rows.append(values(linear.weight).detach().cpu().movedim(dim, 0)[places].flatten(1))
            if dim == 0 and linear.bias is not None:
                rows.append(values(linear.bias).detach().cpu()[places])
        return torch.cat(rows, 1)

    def as_channels(self) -> tp.dependency.Group:
        """The group of a linear layer whose output channels are the heads, so that any criterion can score them."""
        known = all(parameter.grad is not None for linear, _, _ in self.parts() for parameter in linear.parameters())
        return of_rows(self.by_head(lambda parameter: parameter), self.by_head(gradient) if known else None)


def gradient(parameter: Tensor) -> Tensor:
    """That of a parameter which has one."""
    assert parameter.grad is not None
    return parameter.grad


def attention_layers(network: nn.Module) -> dict[str, MultiHead]:
    """Name -> layer with heads."""
    return {name: module for name, module in network.named_modules() if isinstance(module, MultiHead)}


@contextlib.contextmanager
def cut_at_heads(network: nn.Module, ends: list[Tensor]) -> Iterator[None]:
    """Until the block ends, no gradient passes through the heads; what goes into them is added to `ends`."""

    def end(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        ends.append(output)

    def start(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.detach() for tensor in inputs)

    layers = attention_layers(network).values()
    handles = [linear.register_forward_hook(end) for layer in layers for linear, _ in layer.packed()]
    handles += [layer.proj.register_forward_pre_hook(start) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
