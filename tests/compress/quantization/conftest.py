"""A detector of bright rectangles in which chosen layers, and no others, suffer from integers; its float self finds every word."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.checkpoint import Model
from compress.data.split import Annotation, Split
from compress.lab import Lab
from compress.models.contract import Words
from compress.models.registry import build
from compress.recipe import load

TINY = Path(__file__).parents[2] / "end_to_end" / "tiny.yml"
LAYERS = 7


class Brightness(nn.Module):
    """Layers that hand the mean brightness on in three channels.

    A fourth channel is read by none. Before a culprit it is a thousand times the brightness, so that in 8 bits with one scale a tensor
    nothing is left of the other three.
    """

    def __init__(self, culprits: Collection[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 if index == 0 else 4, 4, 1) for index in range(LAYERS))
        self.last = nn.Conv2d(4, 1, 1)
        with torch.no_grad():
            for index, layer in enumerate([*self.layers, self.last]):
                layer.weight.zero_()
                layer.weight[:, :3] = 1 / 3
                layer.bias.fill_(2 if index == 0 else 0)
                for parameter in (layer.weight, layer.bias):
                    parameter[3:] *= 1000 if index + 1 in culprits else 1
            self.last.weight.mul_(5)
            self.last.bias.fill_(-10)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        for layer in self.layers:
            images = layer(images).relu()
        return {"probability": self.last(images).sigmoid()}


def rectangles(name: str, count: int) -> Split:
    """Images with two bright rectangles each."""
    corners = np.random.default_rng(len(name)).integers(0, 12, (count, 2, 2))
    images, annotations = [], []
    for index, places in enumerate(corners):
        image = np.full((64, 96, 3), 40, np.uint8)
        words = []
        for number, (x, y) in enumerate(places):
            left, top = x + 6 + 48 * number, y + 8
            image[top : top + 16, left : left + 24] = 220
            words.append(np.float32([[left, top], [left + 24, top], [left + 24, top + 16], [left, top + 16]]))
        images.append(image)
        annotations.append(Annotation(str(index), Words(words, np.zeros(2, bool), ["word"] * 2)))
    return Split(name, annotations, images.__getitem__, f"{name} {count}")


@pytest.fixture
def brightness(tmp_path) -> Callable[[Collection[int]], tuple[Model, Lab]]:
    """culprits -> a model that suffers in those of its layers, and a lab with six training and four validation images."""

    def make(culprits: Collection[int]) -> tuple[Model, Lab]:
        recipe = load(TINY, ["evaluate.short_side=64", "evaluate.unclip_ratio=0"])
        algorithm = replace(build(recipe.model), kept_layers=("last",))
        lab = Lab(recipe, tmp_path, torch.device("cpu"), lambda _: None, quiet=True)
        lab.splits = {"train": rectangles("train", 6), "val": rectangles("val", 4)}
        return Model(recipe.model, Brightness(culprits).eval(), algorithm, recipe.evaluate), lab

    return make
