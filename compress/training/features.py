"""Features of named layers: which layers, what comes out of them, and convolutions that bring a student's to its teacher's width."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import Tensor, nn

from compress.checkpoint import Model, example_input
from compress.errors import CompressError, suggestion
from compress.training.modes import show_all_maps

CONTAINERS = (nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Levels:
    """Layers of a student and of its teacher, held against each other in order: their names, and the channels that leave them."""

    student: tuple[str, ...]
    teacher: tuple[str, ...]
    widths: tuple[int, ...]
    wanted: tuple[int, ...]


def matching_layers(network: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of the layers that match any of the `fnmatch` patterns, in the network's order; of nested ones the outermost.

    Raises CompressError for a pattern that matches no layer.
    """
    names = [name for name, module in network.named_modules() if name and not isinstance(module, CONTAINERS)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise CompressError(f"'{pattern}' matches no layer{suggestion(pattern, names)}")
    matched = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return tuple(name for name in matched if not any(name.startswith(f"{outer}.") for outer in matched))


@contextlib.contextmanager
def outputs_of(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A mapping that holds, after each call of `network` inside the context, what left each layer last."""
    seen: dict[str, Tensor] = {}
    with contextlib.ExitStack() as hooks:
        for name in layers:
            handle = network.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, output, name=name: seen.__setitem__(name, output)
            )
            hooks.callback(handle.remove)
        yield seen


@torch.no_grad()
def tried_out(model: Model, layers: Sequence[str], images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The training maps and the outputs of `layers` for `images`; leaves the network in the mode of `show_all_maps`."""
    show_all_maps(model.network)
    with outputs_of(model.network, layers) as seen:
        maps = model.network(images.to(next(model.network.parameters()).device))
    return maps, seen


def check_maps(student: Model, teacher: Model, names: Mapping[str, Sequence[str]], *, over_time: Collection[str] = ()) -> None:
    """Raises CompressError where the teacher does not give one of the outputs, or gives one that the student's cannot be held against.

    names: output of the student -> those of the teacher that it is held against. Maps may be of another resolution. over_time: outputs
    whose classes are compared as means over time, so that the numbers of steps may differ.
    """
    images = example_input(student)
    (given, _), (copied, _) = tried_out(student, (), images), tried_out(teacher, (), images)
    for name, others in names.items():
        for other in others:
            if other not in teacher.algorithm.copies:
                raise CompressError(f"the teacher gives no map '{other}'{suggestion(other, teacher.algorithm.copies)}")
            kinds = student.algorithm.copies.get(name), teacher.algorithm.copies[other]
            ours, theirs = given[name].shape, copied[other].shape
            if kinds[0] != kinds[1] or compared_sizes(ours, name in over_time) != compared_sizes(theirs, name in over_time):
                sizes = f"{tuple(theirs[1:])}, the student's '{name}' {tuple(ours[1:])}"
                raise CompressError(f"the teacher's map '{other}' is of size {sizes}: they cannot be compared; choose another teacher.")


def compared_sizes(shape: Sequence[int], over_time: bool) -> tuple[int, ...]:
    """The sizes that must be equal: of maps batch and channels, of (B, T, classes) compared as means over time all but T."""
    return tuple(shape[:2]) if len(shape) == 4 else (shape[0], shape[2]) if len(shape) == 3 and over_time else tuple(shape)


def paired_levels(student: Model, teacher: Model, layers: Sequence[str], teacher_layers: Sequence[str]) -> Levels:
    """The layers that the patterns name in both networks, and their widths, found by showing each of them an image.

    layers, teacher_layers: `fnmatch` patterns. Raises CompressError where one matches nothing, where the numbers of layers or their
    resolutions differ, and for a layer that gives no (B, C, H, W) features.
    """
    names = matching_layers(student.network, layers)
    others = named_in_teacher(teacher.network, teacher_layers)
    if len(names) != len(others):
        raise CompressError(
            f"feature: {len(names)} layers of the student ({', '.join(names)}) cannot be held against {len(others)} of the teacher "
            f"({', '.join(others)}); name as many of each by `layers` and `teacher_layers`."
        )
    images = example_input(student)
    here = level_shapes(student, names, images, "student")
    there = level_shapes(teacher, others, images, "teacher")
    for name, other, shape, wanted in zip(names, others, here, there, strict=True):
        if shape[2:] != wanted[2:]:
            raise CompressError(
                f"feature: '{name}' of the student is {shape[2]} x {shape[3]} where '{other}' of the teacher is {wanted[2]} x {wanted[3]}; "
                "name layers of equal resolution by `layers` and `teacher_layers`."
            )
    return Levels(names, others, tuple(shape[1] for shape in here), tuple(shape[1] for shape in there))


def named_in_teacher(network: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """:func:`matching_layers`, with the teacher named in its complaint."""
    try:
        return matching_layers(network, patterns)
    except CompressError as error:
        raise CompressError(f"feature: in the teacher {error}") from None


def level_shapes(model: Model, layers: Sequence[str], images: Tensor, whose: str) -> list[torch.Size]:
    """Shapes of what leaves the layers for `images`."""
    _, seen = tried_out(model, layers, images)
    for name in layers:
        if not isinstance(seen.get(name), Tensor) or seen[name].dim() != 4:
            raise CompressError(f"feature: '{name}' of the {whose} gives no (B, C, H, W) features; name another layer.")
    return [seen[name].shape for name in layers]


class Adapters(nn.Module):
    """1x1 convolutions, one for each student and level, from the student's width to the teacher's; none where they are equal.

    Without bias: to add to a channel as a whole does not change its softmax over positions.
    """

    def __init__(self, levels: Levels, students: int) -> None:
        super().__init__()
        self.students = nn.ModuleList(
            nn.ModuleList(
                nn.Identity() if width == wanted else nn.Conv2d(width, wanted, 1, bias=False)
                for width, wanted in zip(levels.widths, levels.wanted, strict=True)
            )
            for _ in range(students)
        )

    def forward(self, features: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """features: for each student, the (B, C, H, W) outputs of its levels. All in one call, as data-parallel training wants it."""
        return [
            [adapt(level) for adapt, level in zip(cast(nn.ModuleList, adapters), levels, strict=True)]
            for adapters, levels in zip(self.students, features, strict=True)
        ]
