"""Training samples in a seeded order that depends on neither the number of workers nor the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import cv2
import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compress.data.split import Split
from compress.errors import CompressError
from compress.models.contract import Algorithm, Sample
from compress.tasks import TASKS

CARRIED = "carried."  # in the names of what a view carries beside its image


class TrainingSet:
    """`training_set[epoch, index]`: `image`, (height, width, 3) uint8, and the arrays of `targets` for a random view of an image.

    The maps of samples that have some, (C, height, width) uint8, are `carried.<name>`.

    The view is decided by (seed, epoch, index) alone. size: height and width of the views, in pixels.
    """

    def __init__(self, split: Split, algorithm: Algorithm, augment: BaseModel, size: tuple[int, int], seed: int) -> None:
        if len(split) == 0:
            raise CompressError(f"The {split.name} split holds no images; there is nothing to train on.")
        self.split = split
        self.targets = algorithm.targets
        self.input = algorithm.input
        self.random_view, self.joined = TASKS[algorithm.task].view, TASKS[algorithm.task].joined
        self.augment = augment
        self.size = size
        self.seed = seed
        self.loaders: dict[tuple[int, int, int, int], DataLoader] = {}

    def __len__(self) -> int:
        return len(self.split)

    def view(self, epoch: int, index: int) -> Sample:
        """The augmented sample before its targets are made."""
        rng = np.random.default_rng((self.seed, epoch, index))
        sample = self.split[index]
        if self.joined:
            sample = self.joined(sample, lambda: self.split[int(rng.integers(len(self.split)))], self.augment, self.size, rng)
        return self.random_view(sample, self.augment, self.size, self.input, rng)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, np.ndarray]:
        sample = self.view(*item)
        carried = {CARRIED + name: maps for name, maps in sample.maps.items()}
        return {"image": sample.image, **self.targets(sample), **carried}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"loaders": {}}


class Order:
    """Batches of (epoch, index) for one of `world` processes. `epoch` is set before each one."""

    def __init__(self, length: int, seed: int, batch_size: int, rank: int, world: int) -> None:
        self.length = length
        self.seed = seed
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self.epoch = 0

    def __len__(self) -> int:
        return max(1, self.length // (self.batch_size * self.world))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # The views are seeded with (seed, epoch, index): an index that does not occur keeps the two apart.
        order = np.random.default_rng((self.seed, self.epoch, self.length)).permutation(self.length)
        size = min(self.batch_size, -(-self.length // self.world))
        for batch in range(len(self)):
            start = (batch * self.world + self.rank) * size
            yield [(self.epoch, int(order[place % self.length])) for place in range(start, start + size)]


def batches(
    training_set: TrainingSet, epoch: int, batch_size: int, workers: int, rank: int = 0, world: int = 1
) -> Iterator[dict[str, Tensor]]:
    """One epoch: dicts of stacked tensors, `image` (B, height, width, 3) uint8, in an order decided by (seed, epoch).

    batch_size: images in a batch of one process; `world` processes share each step, `rank` says which one this is.
    The remainder that fills no step of `world` batches is left out, another one each epoch. A set smaller than one step is one
    smaller batch, the first images repeated where the processes could not have equally many.
    workers: processes that prepare samples; they are kept from epoch to epoch. 0 prepares them here.
    """
    key = (batch_size, workers, rank, world)
    loader = training_set.loaders.get(key)
    if loader is None:
        loader = DataLoader(
            cast(Dataset, training_set),
            batch_sampler=Order(len(training_set), training_set.seed, batch_size, rank, world),
            num_workers=workers,
            collate_fn=stack,
            worker_init_fn=single_threaded,
            persistent_workers=workers > 0,
        )
        training_set.loaders[key] = loader
    cast(Order, loader.batch_sampler).epoch = epoch
    yield from loader


def stack(samples: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}


def single_threaded(_worker: int) -> None:
    cv2.setNumThreads(0)


def normalise(images: Tensor, mean_std: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in channels-last memory: scaled to 0..1, minus mean, over std, per channel."""
    width = images.shape[2]
    # A row at a time: along an axis of 3 torch computes one number after the other, which takes three times as long.
    mean, std = ((torch.tensor(values, dtype=torch.float32, device=images.device) * 255).repeat(width) for values in mean_std)
    return images.flatten(2).float().sub_(mean).div_(std).unflatten(2, (width, 3)).permute(0, 3, 1, 2)
