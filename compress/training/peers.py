"""The second of two students that learn from each other (Zhang et al. 2018, "Deep Mutual Learning")."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from compress.checkpoint import Model, fresh
from compress.errors import CompressError

# Enough that two copies of a network take different ways, little enough that a trained one does not start anew.
NOISE = 0.1


def second_student(model: Model, peer: str, seed: int, open_model: Callable[[str], Model]) -> Model:
    """A model of the widths of `model` with other weights.

    peer: `perturbed` (:func:`perturbed`), `fresh` (:func:`fresh_like`), or what `open_model` understands.
    Raises CompressError for a quantized student, and for a peer that is the student itself or whose weights have other names or shapes.
    """
    if model.quantization:
        raise CompressError("mutual learning starts from a float model; quantize its result instead.")
    if peer == "perturbed":
        return perturbed(model, seed)
    if peer == "fresh":
        return fresh_like(model, seed)
    other = open_model(peer)
    states = [one.network.state_dict() for one in (model, other)]
    shapes, others = ({name: tensor.shape for name, tensor in state.items()} for state in states)
    if other.quantization or shapes != others:
        raise CompressError(
            f"peer: {peer} has other layers or widths than the student; both must have the same, or one would not replace the other."
        )
    if all(torch.equal(tensor.cpu(), own.cpu()) for tensor, own in zip(states[1].values(), states[0].values(), strict=True)):
        raise CompressError(
            f"peer: {peer} is the student itself, and two that are equal learn nothing from each other; use `peer: perturbed`."
        )
    return other


def perturbed(model: Model, seed: int) -> Model:
    """A copy with normal noise added to all weights but those of norms and biases, of a tenth of each tensor's standard deviation."""
    network = copy.deepcopy(model.network)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.dim() > 1 and parameter.numel() > 1:  # one number has no standard deviation
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.data.add_(noise * (NOISE * parameter.data.std()))
    return model.with_network(network)


def fresh_like(model: Model, seed: int) -> Model:
    """New weights from `seed` in a network of the same widths: of the unpruned one's fresh weights, the first channels of each layer."""
    torch.manual_seed(seed)
    initial = fresh(model.config, model.evaluate).network.state_dict()
    network = copy.deepcopy(model.network)
    state = network.state_dict()
    if unknown := sorted(state.keys() - initial.keys()):
        raise CompressError(f"peer: fresh cannot be made for a network with folded batch norms ({unknown[0]}); use `peer: perturbed`.")
    network.load_state_dict({name: leading(initial[name], tensor) for name, tensor in state.items()})
    return model.with_network(network)


def leading(tensor: Tensor, like: Tensor) -> Tensor:
    """The part of `tensor` with the shape of `like` that starts at its first element."""
    return tensor[tuple(slice(length) for length in like.shape)]
