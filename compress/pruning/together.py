"""Run several networks that differ in a few weights on the same images, and compute the common part once.

The first network runs normally, and every operator is recorded. An operator is shared if no tensor that it reads depends on a weight that
differs. The other networks skip shared operators: such an operator returns empty memory of the right shape. An operator that is not shared
gets the first network's values instead of that memory. Every result equals that of the network alone, to the last bit. Of six networks
that were pruned in the same layer, five compute only from that layer on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten


def together(networks: Sequence[nn.Module]) -> Callable[..., list[Mapping[str, Tensor]]]:
    """What runs `networks` on (B, 3, H, W) images and what else they take, without gradients, and gives the outputs of each.

    networks: of one architecture, of any widths and weights, in any mode: statistics of norms are updated as by each network alone. They
    are followed operator by operator, so a forward must be made of torch's, as for export. A network that does other things than the
    first one runs by itself.
    """
    first, *others = networks
    differing = names_that_differ(networks)

    @torch.no_grad()
    def run(images: Tensor, *extra: Any) -> list[Mapping[str, Tensor]]:
        recording = Recording({storage(tensor) for name, tensor in tensors_of(first).items() if name in differing}, images)
        with recording if others else nullcontext():
            outputs = first(images, *extra)
        return [outputs, *(replayed(network, (images, *extra), recording, outputs) or network(images, *extra) for network in others)]

    return run


def names_that_differ(networks: Sequence[nn.Module]) -> set[str]:
    """Names of the first network's parameters and buffers that are not the same in all others."""
    first, *others = [tensors_of(network) for network in networks]
    return {name for name, mine in first.items() for other in others if name not in other or not torch.equal(mine, other[name])}


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def storage(tensor: Tensor) -> int:
    """The address of a tensor's memory, which its views share."""
    return tensor.untyped_storage().data_ptr()


@dataclass(frozen=True)
class Step:
    """One operator of the recorded pass.

    shared: whether other networks can skip it.
    constants: its arguments that are not tensors; None if it is not shared, because then they may differ.
    values: of an operator that is not shared, the results of shared operators that it reads: position of the argument -> tensor.
    updates: of a shared operator, the buffers that it changed (running statistics of a norm): position of the argument -> new value.
    result: the result as meta tensors (shapes without values). back: position of the argument that it returns, if it works in place.
    """

    operator: Any
    shared: bool
    constants: list[Any] | None
    values: dict[int, Tensor]
    updates: dict[int, Tensor]
    result: Any
    back: int | None


class Recording(TorchDispatchMode):
    """Notes every operator of a pass over `images`.

    differing: addresses of weights that differ, joined by all that is computed from them. from_images: of what is computed from the images.
    kept: of what other passes will read. sound: whether they can go by the notes.
    """

    def __init__(self, differing: set[int], images: Tensor) -> None:
        super().__init__()
        self.differing, self.from_images, self.kept = differing, {storage(images)}, set[int]()
        self.steps: list[Step] = []
        self.sound = True

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        arguments = tree_leaves((args, kwargs or {}))
        read = {place: storage(argument) for place, argument in enumerate(arguments) if isinstance(argument, Tensor)}
        differs, reads_images = (not kind.isdisjoint(read.values()) for kind in (self.differing, self.from_images))
        common = [place for place, held in read.items() if differs and held in self.from_images and held not in self.differing]
        self.kept.update(read[place] for place in common)
        written = {storage(tensor) for tensor in written_by(operator, args, kwargs or {})}
        shared = reads_images and not differs
        # By value: batch norm does not declare that it writes.
        before = {place: arguments[place].clone() for place, held in read.items() if shared and held not in self.from_images}
        result = operator(*args, **(kwargs or {}))
        given = {storage(tensor) for tensor in tree_leaves(result) if isinstance(tensor, Tensor)}
        # What is kept must stay as it is, and memory that others leave empty must not be filled in part.
        self.sound &= self.kept.isdisjoint(written | given if differs else written)
        for kind, belongs in ((self.differing, differs), (self.from_images, reads_images)):
            kind.update(given | written) if belongs else kind.difference_update(given)
        constants = None if differs else [argument for argument in arguments if not isinstance(argument, Tensor)]
        values = {place: arguments[place] for place in common}
        updates = {place: arguments[place].clone() for place, old in before.items() if not torch.equal(arguments[place], old)}
        back = next((place for place in read if arguments[place] is result), None)
        blank = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), result) if shared else None
        self.steps.append(Step(operator, shared, constants, values, updates, blank, back))
        return result


def written_by(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that an operator writes into, by its declaration."""
    declared = operator._schema.arguments
    given = {**{argument.name: value for argument, value in zip(declared, args, strict=False)}, **kwargs}
    places = [given.get(argument.name) for argument in declared if argument.alias_info is not None and argument.alias_info.is_write]
    return [leaf for leaf in tree_leaves(places) if isinstance(leaf, Tensor)]


class Different(Exception):  # noqa: N818
    """A network does something else than the recorded one."""


class Replaying(TorchDispatchMode):
    """Skips what is shared with a recorded pass over the same images. Raises :class:`Different` where the network leaves the notes."""

    def __init__(self, steps: Sequence[Step], device: torch.device) -> None:
        super().__init__()
        self.steps, self.device = iter(steps), device

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        arguments, structure = tree_flatten((args, kwargs or {}))
        step = next(self.steps, None)
        if step is None or operator is not step.operator:
            raise Different
        if step.constants is not None and step.constants != [argument for argument in arguments if not isinstance(argument, Tensor)]:
            raise Different
        if step.shared:
            for place, value in step.updates.items():
                arguments[place].copy_(value)
            if step.back is not None:
                return arguments[step.back]
            return tree_map_only(Tensor, lambda tensor: torch.empty_like(tensor, device=self.device), step.result)
        for place, value in step.values.items():
            arguments[place] = value
        args, kwargs = tree_unflatten(arguments, structure)
        return operator(*args, **kwargs)


def replayed(
    network: nn.Module, given: tuple[Any, ...], recording: Recording, outputs: Mapping[str, Tensor]
) -> Mapping[str, Tensor] | None:
    """The outputs of a network by the notes on another one, whose `outputs` are given; None where that cannot be."""
    if not recording.sound:
        return None
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        with Replaying(recording.steps, given[0].device):
            mine = network(*given)
    except Different:
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])
        return None
    return {name: mine[name] if storage(theirs) in recording.differing else theirs.clone() for name, theirs in outputs.items()}
