"""Training samples in a seeded order that depends on neither the number of workers nor the number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from compress.data.augment import Augment, augment
from compress.data.split import Split
from compress.errors import CompressError
from compress.models.contract import Sample


class TrainingSet:
    """`training_set[epoch, index]`: `image`, (crop, crop, 3) uint8, and the arrays of `targets` for a random view of a picture.

    The view is decided by (seed, epoch, index) alone.
    """

    def __init__(self, split: Split, targets: Callable[[Sample], dict[str, np.ndarray]], augment: Augment, crop: int, seed: int) -> None:
        if len(split) == 0:
            raise CompressError(f"The {split.name} split holds no pictures; there is nothing to train on.")
        self.split = split
        self.targets = targets
        self.augment = augment
        self.crop = crop
        self.seed = seed
        self.loaders: dict[tuple[int, int, int, int], DataLoader] = {}

    def __len__(self) -> int:
        return len(self.split)

    def view(self, epoch: int, index: int) -> Sample:
        """The augmented sample before its targets are made."""
        return augment(self.split[index], self.augment, self.crop, np.random.default_rng((self.seed, epoch, index)))

    def __getitem__(self, item: tuple[int, int]) -> dict[str, np.ndarray]:
        sample = self.view(*item)
        return {"image": sample.image, **self.targets(sample)}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"loaders": {}}


class Order:
    """Batches of (epoch, index) for one of `world` processes. `epoch` is set before each pass."""

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
    """One epoch: dicts of stacked tensors, `image` (B, crop, crop, 3) uint8, in an order decided by (seed, epoch).

    batch_size: pictures in a batch of one process; `world` processes share each step, `rank` says which one this is.
    The remainder that fills no step of `world` batches is left out, another one each epoch. A set smaller than one step is one
    smaller batch, the first pictures repeated where the processes could not have equally many.
    workers: processes that prepare samples; they are kept from epoch to epoch. 0 prepares them here.
    """
    key = (batch_size, workers, rank, world)
    loader = training_set.loaders.get(key)
    if loader is None:
        loader = DataLoader(
            training_set,
            batch_sampler=Order(len(training_set), training_set.seed, batch_size, rank, world),
            num_workers=workers,
            collate_fn=stack,
            worker_init_fn=single_threaded,
            persistent_workers=workers > 0,
        )
        training_set.loaders[key] = loader
    loader.batch_sampler.epoch = epoch
    yield from loader


def stack(samples: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}


def single_threaded(_worker: int) -> None:
    cv2.setNumThreads(0)
