from __future__ import annotations

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.data.detection.augment import Augment
from compress.data.split import Annotation, Split
from compress.data.training import TrainingSet, batches
from compress.errors import CompressError
from compress.models.contract import Label, Sample, Words
from compress.models.registry import build
from compress.tasks import TASKS


def image(index: int) -> np.ndarray:
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([x + y, 3 * x, np.full_like(x, index)], axis=2).astype(np.uint8)


def targets(sample: Sample) -> dict[str, np.ndarray]:
    """The number of the image, and a map that depends on the view."""
    return {"number": np.array(int(sample.name), np.int64), "map": sample.image[None, ..., 0].astype(np.float32) / 255}


def training_set(length: int, seed: int = 0, **augment) -> TrainingSet:
    quad = np.array([(5, 5), (20, 5), (20, 15), (5, 15)], np.float32)
    annotations = [Annotation(str(index), Words([quad], np.array([False]), ["w"])) for index in range(length)]
    split = Split("train", annotations, image, "digest")
    return TrainingSet(split, replace(build("db"), targets=targets), Augment(**augment), (32, 32), seed)


def numbers(data: TrainingSet, epoch: int, batch_size: int, **options) -> list[list[int]]:
    return [batch["number"].tolist() for batch in batches(data, epoch, batch_size, options.pop("workers", 0), **options)]


def test_batches_are_stacked_tensors():
    (batch,) = batches(training_set(4), 0, 4, 0)
    assert batch["image"].shape == (4, 32, 32, 3)
    assert batch["image"].dtype == torch.uint8
    assert batch["map"].shape == (4, 1, 32, 32)
    assert batch["map"].dtype == torch.float32
    assert batch["number"].dtype == torch.int64
    assert sorted(batch["number"].tolist()) == [0, 1, 2, 3]


def test_views_are_those_of_the_task_in_height_and_width():
    algorithm = replace(build("angle"), targets=lambda sample: {"label": np.array(len(sample.truth.name), np.int64)})
    split = Split("train", [Annotation(str(index), Label("180")) for index in range(3)], image, "digest")
    (batch,) = batches(TrainingSet(split, algorithm, TASKS["classification"].augment(), (48, 112), 0), 0, 3, 0)
    assert batch["image"].shape == (3, 48, 112, 3)
    assert batch["label"].tolist() == [3, 3, 3]
    wide = TrainingSet(training_set(1).split, build("db"), Augment(), (48, 112), 0)
    with pytest.raises(ValueError, match=r"give one number, not \[48, 112\]"):
        wide.view(0, 0)


def test_an_item_is_decided_by_seed_epoch_and_index():
    data = training_set(50)
    image = data[3, 40]["image"]
    np.testing.assert_array_equal(training_set(50)[3, 40]["image"], image)
    np.testing.assert_array_equal(data.view(3, 40).image, image)
    for other in (training_set(50, seed=1)[3, 40], data[4, 40]):
        assert other["image"].tobytes() != image.tobytes()


def test_every_worker_count_gives_the_same_batches():
    data = training_set(23)
    for epoch in (0, 1, 2):
        expected = list(batches(data, epoch, 4, 0))
        assert len(expected) == 5
        for workers in (1, 2):
            found = list(batches(data, epoch, 4, workers))
            assert len(found) == 5
            for ours, theirs in zip(found, expected, strict=True):
                assert ours.keys() == theirs.keys()
                for name in ours:
                    assert torch.equal(ours[name], theirs[name])


def test_workers_live_on_after_an_epoch_that_was_broken_off():
    data = training_set(40)
    first = batches(data, 0, 4, 2)
    next(first)
    loaders = dict(data.loaders)
    assert numbers(data, 1, 4, workers=2) == numbers(data, 1, 4)
    assert data.loaders[4, 2, 0, 1] is loaders[4, 2, 0, 1]


def test_order_is_seeded_and_changes_with_the_epoch():
    data = training_set(16)
    epochs = [numbers(data, epoch, 4) for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2] != epochs[1]
    assert numbers(training_set(16, seed=5), 0, 4) != epochs[0]
    for order in epochs:
        assert sorted(itertools.chain(*order)) == list(range(16))


def test_the_remainder_is_left_out_another_one_each_epoch():
    data = training_set(10)
    left = set()
    for epoch in range(6):
        order = numbers(data, epoch, 4)
        assert [len(batch) for batch in order] == [4, 4]
        seen = set(itertools.chain(*order))
        assert len(seen) == 8
        left |= set(range(10)) - seen
    assert len(left) > 2


@pytest.mark.parametrize(("length", "batch_size"), [(12, 2), (13, 2), (25, 4), (8, 4)])
def test_ranks_share_the_order_of_one_process(length, batch_size):
    data = training_set(length)
    for epoch in (0, 1):
        alone = numbers(data, epoch, 2 * batch_size)
        ranks = [numbers(data, epoch, batch_size, rank=rank, world=2) for rank in (0, 1)]
        assert [first + second for first, second in zip(*ranks, strict=True)] == alone


def test_a_set_smaller_than_a_batch_is_one_smaller_batch():
    assert [sorted(batch) for batch in numbers(training_set(3), 0, 8)] == [[0, 1, 2]]
    ranks = [numbers(training_set(3), 0, 8, rank=rank, world=2) for rank in (0, 1)]
    assert [len(batch) for rank in ranks for batch in rank] == [2, 2]
    assert set(itertools.chain(*ranks[0], *ranks[1])) == {0, 1, 2}
    assert numbers(training_set(1), 0, 4, rank=3, world=4) == [[0]]


def test_an_empty_split_is_refused():
    with pytest.raises(CompressError, match="no images"):
        training_set(0)


def test_a_training_set_goes_to_processes_that_are_spawned():
    data = training_set(5)
    list(batches(data, 0, 2, 0))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[0, 1]["image"], data[0, 1]["image"])
