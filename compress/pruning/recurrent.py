"""LSTMs in the dependency graph: how they lose input and hidden channels, and what makes a hidden channel important.

An LSTM with 3 inputs and 2 hidden channels has the weights `weight_ih`, (8, 3), and `weight_hh`, (8, 2): for each of four gates two rows.
Hidden channel 1 is row 1 of every gate, the rows 1, 3, 5 and 7 of both weights and biases, and column 1 of `weight_hh`. Whoever reads the
LSTM loses its column 1 too. Input channel 2 is column 2 of `weight_ih`.

torch-pruning 1.6.1 has a rule of its own that cuts the wrong rows, and cannot follow a graph through an LSTM: here a product stands in for
one while the graph is found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.functional import linear

GATES = 4


class LSTMChannels(tp.BasePruningFunc):
    """Removes channels of an LSTM in place. Hidden ones of one layer and one direction alone; see :func:`keeps_hidden`."""

    TARGET_MODULES = nn.LSTM

    def prune_out_channels(self, layer: nn.LSTM, idxs: list[int]) -> nn.Module:
        """Take hidden channels out."""
        kept = sorted(set(range(layer.hidden_size)) - set(idxs))
        rows = [gate * layer.hidden_size + channel for gate in range(GATES) for channel in kept]
        for name, parameter in list(layer.named_parameters()):
            less = self._prune_parameter_and_grad(parameter, rows, 0)
            setattr(layer, name, self._prune_parameter_and_grad(less, kept, 1) if name.startswith("weight_hh") else less)
        layer.hidden_size = len(kept)
        return layer

    def prune_in_channels(self, layer: nn.LSTM, idxs: list[int]) -> nn.Module:
        """Take input channels out, of both directions where there are two."""
        kept = sorted(set(range(layer.input_size)) - set(idxs))
        for name in [name for name, _ in layer.named_parameters() if name.startswith("weight_ih_l0")]:
            setattr(layer, name, self._prune_parameter_and_grad(getattr(layer, name), kept, 1))
        layer.input_size = len(kept)
        return layer

    def get_out_channels(self, layer: nn.LSTM) -> int:
        """How many leave it."""
        return layer.hidden_size * (2 if layer.bidirectional else 1)

    def get_in_channels(self, layer: nn.LSTM) -> int:
        """How many go in."""
        return layer.input_size


PRUNER = LSTMChannels()


def keeps_hidden(layer: nn.Module) -> bool:
    """Whether it is an LSTM whose hidden channels stay: those of several layers, of both directions or with projections hang together."""
    return isinstance(layer, nn.LSTM) and (layer.num_layers > 1 or layer.bidirectional or layer.proj_size > 0)


@contextlib.contextmanager
def stood_in_for(network: nn.Module) -> Iterator[None]:
    """Until the block ends, every LSTM of `network` computes one product of its inputs instead, from as many channels to as many."""
    layers = [module for module in network.modules() if isinstance(module, nn.LSTM)]
    for layer in layers:
        layer.forward = stand_in(layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def stand_in(layer: nn.LSTM) -> Any:
    """What gives an output of the right shape, whose history is a matrix product."""
    weight = torch.zeros(PRUNER.get_out_channels(layer), layer.input_size, device=next(layer.parameters()).device, requires_grad=True)

    def product(steps: Tensor, *_: Any) -> tuple[Tensor, None]:
        return linear(steps, weight), None

    return product


def lstms_in(coupled: tp.dependency.Group) -> list[nn.LSTM]:
    """The LSTMs whose hidden channels are those of a group."""
    return [item.dep.target.module for item in coupled if item.dep.handler == PRUNER.prune_out_channels]


def hidden_channels(layer: nn.LSTM) -> tp.dependency.Group:
    """The group of a linear layer whose output channels are the hidden channels of an LSTM, so that any criterion can score them.

    The weights of a channel are all that it has in the LSTM: its row in each gate, and its column of `weight_hh`. Gradients go along.
    """
    parameters = dict(layer.named_parameters())
    weight, gradients = by_channel(parameters.items(), layer.hidden_size), None
    if all(parameter.grad is not None for parameter in parameters.values()):
        found = ((name, parameter.grad) for name, parameter in parameters.items() if parameter.grad is not None)
        gradients = by_channel(found, layer.hidden_size)
    return of_rows(weight, gradients)


def by_channel(tensors: Any, hidden: int) -> Tensor:
    """(hidden, n): everything in the named tensors, of the shapes of an LSTM's parameters, that belongs to each hidden channel."""
    parts: list[Tensor] = []
    for name, tensor in tensors:
        values = tensor.detach().cpu()
        parts.append(values.reshape(GATES, hidden, -1).transpose(0, 1).flatten(1))
        if name.startswith("weight_hh"):
            parts.append(values.t())
    return torch.cat(parts, 1)


def of_rows(weight: Tensor, gradients: Tensor | None) -> tp.dependency.Group:
    """The group of the output channels of a linear layer that has the (channels, n) `weight`, and these gradients of it."""
    layer = nn.Linear(1, len(weight), bias=False)
    layer.weight, layer.in_features = nn.Parameter(weight), weight.shape[1]
    layer.weight.grad = gradients
    graph = tp.DependencyGraph().build_dependency(nn.Sequential(layer), torch.zeros(1, layer.in_features))
    return graph.get_pruning_group(layer, tp.prune_linear_out_channels, list(range(len(weight))))
