"""PSENet: labels, loss, and progressive scale expansion against a queue."""

from __future__ import annotations

import pickle
from collections import deque

import cv2
import numpy as np
import pytest
import torch

from compress.models.contract import Sample, Words
from compress.models.networks.psenet import pse_loss
from compress.models.psenet import Thresholds, progressive_scale_expansion, pse_decode, pse_targets, psenet, scales

NEIGHBOURS = ((-1, 0), (0, -1), (0, 1), (1, 0))


def sample(polygons: list, ignore: list[bool] | None = None, size: tuple[int, int] = (160, 200)) -> Sample:
    arrays = [np.array(polygon, np.float32) for polygon in polygons]
    flags = np.array(ignore if ignore is not None else [False] * len(arrays), bool)
    return Sample("image", np.zeros((*size, 3), np.uint8), Words(arrays, flags))


def upright(left: float, top: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


def spread(labels: np.ndarray, start: list[tuple[int, int]], inside: np.ndarray) -> None:
    """First come, first served."""
    queue = deque(start)
    while queue:
        y, x = queue.popleft()
        for dy, dx in NEIGHBOURS:
            v, u = y + dy, x + dx
            if 0 <= v < inside.shape[0] and 0 <= u < inside.shape[1] and inside[v, u] and labels[v, u] == 0:
                labels[v, u] = labels[y, x]
                queue.append((v, u))


def plain_expansion(kernels: np.ndarray, min_area: float) -> np.ndarray:
    """Algorithm 1 as it is written, the highest label first in the queue."""
    text = kernels[-1]
    labels, number = np.zeros(text.shape, np.int32), 0
    for y, x in np.argwhere(kernels[0] & text).tolist():
        if labels[y, x] == 0:
            labels[y, x] = number = number + 1
            spread(labels, [(y, x)], kernels[0] & text)
    for label in range(1, number + 1):
        if (labels == label).sum() < min_area:
            labels[labels == label] = 0
    for kernel in kernels[1:]:
        spread(labels, sorted(np.argwhere(labels > 0).tolist(), key=lambda at: -labels[tuple(at)]), kernel & text)
    return np.unique(labels, return_inverse=True)[1].reshape(text.shape) if (labels == 0).any() else labels


def random_kernels(seed: int, smooth: float, shape: tuple[int, int] = (30, 44)) -> np.ndarray:
    """Seven maps, nested where `smooth`, else each with noise of its own."""
    rng = np.random.default_rng(seed)
    height = rng.normal(size=shape)
    if smooth:
        height = cv2.GaussianBlur(height, (0, 0), smooth)
    own = 0 if smooth else rng.normal(0, 0.3, (7, *shape))
    return height / height.std() + own > np.linspace(1.2, -0.3, 7)[:, None, None]


@pytest.mark.parametrize("smooth", [0, 1.0, 2.0])
@pytest.mark.parametrize("min_area", [0, 3])
def test_expansion_equals_a_queue(smooth: float, min_area: float) -> None:
    contested = 0
    for seed in range(8):
        kernels = random_kernels(seed, smooth)
        ours = progressive_scale_expansion(kernels, min_area)
        np.testing.assert_array_equal(ours, plain_expansion(kernels, min_area))
        regions, of_text = cv2.connectedComponents(kernels[-1].astype(np.uint8), connectivity=4)
        contested += sum(len(np.unique(ours[(of_text == region) & (ours > 0)])) > 1 for region in range(1, regions))
    assert contested > 8


def test_expansion_of_nothing_and_of_everything() -> None:
    assert not progressive_scale_expansion(np.zeros((7, 8, 9), bool)).any()
    assert (progressive_scale_expansion(np.ones((7, 8, 9), bool)) == 1).all()
    without_seeds = np.ones((7, 8, 9), bool)
    without_seeds[0] = False
    assert not progressive_scale_expansion(without_seeds).any()


def test_scales_are_equation_2() -> None:
    assert scales(7, 0.4) == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert scales(2, 0.5) == pytest.approx([0.5])


def test_kernels_of_a_rectangle_are_shrunk_by_equation_1() -> None:
    width, height = 100, 40
    maps = pse_targets(sample([upright(20, 30, width, height)]))
    assert {name: (array.shape, array.dtype.name) for name, array in maps.items()} == {
        "kernels": ((7, 160, 200), "uint8"),
        "mask": ((1, 160, 200), "uint8"),
    }
    for kernel, ratio in zip(maps["kernels"], (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), strict=True):
        distance = width * height * (1 - ratio**2) / (2 * (width + height))
        # A pixel that the outline touches is painted.
        top, left = round(30 + distance - 1e-6), round(20 + distance - 1e-6)
        bottom, right = round(70 - distance + 1e-6), round(120 - distance + 1e-6)
        inner, outer = np.zeros((2, 160, 200), np.uint8)
        inner[top + 1 : bottom, left + 1 : right] = 1
        outer[top - 1 : bottom + 2, left - 1 : right + 2] = 1
        assert (kernel >= inner).all()
        assert (kernel <= outer).all()
    assert maps["mask"].all()


def test_kernels_are_nested_and_part_words_that_touch() -> None:
    maps = pse_targets(sample([upright(20, 30, 60, 24), upright(80, 30, 60, 24)]))["kernels"]
    assert (np.diff(maps.astype(int), axis=0) >= 0).all()
    assert [cv2.connectedComponents(kernel)[0] - 1 for kernel in (maps[0], maps[-1])] == [2, 1]


def test_words_that_are_not_judged_are_masked_and_leave_no_other_trace() -> None:
    crossed = [(20, 100), (120, 140), (120, 100), (20, 140)]  # of area 0: shrinking leaves nothing
    maps = pse_targets(sample([upright(20, 30, 100, 40), upright(150, 100, 30, 5), crossed, [(5, 5)] * 4], [True, False, False, False]))
    assert not maps["kernels"].any()
    assert not maps["mask"][0, 30:71, 20:121].any()
    assert not maps["mask"][0, 100:106, 150:181].any()
    assert maps["mask"][0, 110, 30] == 0
    assert maps["mask"].mean() > 0.7


def test_loss_is_the_sum_of_plain_dice() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((2, 4, 12, 16), np.float32)
    labels = (rng.random(maps.shape) < 0.3).astype(np.uint8)
    mask = (rng.random((2, 1, 12, 16)) > 0.2).astype(np.uint8)
    targets = {"kernels": torch.from_numpy(labels), "mask": torch.from_numpy(mask)}
    total, parts = pse_loss({"kernels": torch.from_numpy(maps)}, targets, text_weight=0.6)

    def dice(prediction: np.ndarray, target: np.ndarray, chosen: np.ndarray) -> float:
        prediction, target = prediction[chosen].astype(float), target[chosen].astype(float)
        return 1 - 2 * (prediction * target).sum() / ((prediction**2).sum() + (target**2).sum())

    text, kernels = [], []
    for image in range(2):
        score, label, usable = maps[image, -1], labels[image, -1] > 0, mask[image, 0] > 0
        negatives = np.sort(score[~label & usable])[::-1][: 3 * (label & usable).sum()]
        text.append(dice(score, label, usable & (label | (score >= negatives[-1]))))
        kernels += [dice(maps[image, i], labels[image, i], usable & (score >= 0.5)) for i in range(3)]
    assert float(parts["text"]) == pytest.approx(np.mean(text), rel=1e-5)
    assert float(parts["kernels"]) == pytest.approx(np.mean(kernels), rel=1e-5)
    assert float(total) == pytest.approx(0.6 * np.mean(text) + 0.4 * np.mean(kernels), rel=1e-5)


def test_perfect_maps_have_no_loss_and_images_without_text_a_finite_gradient() -> None:
    words = {name: torch.from_numpy(array)[None] for name, array in pse_targets(sample([upright(20, 30, 100, 40)])).items()}
    total, _ = pse_loss({"kernels": words["kernels"].float()}, words)
    assert float(total) == pytest.approx(0, abs=1e-6)
    empty = {"kernels": torch.zeros(1, 7, 32, 32), "mask": torch.zeros(1, 1, 32, 32)}
    maps = torch.full((1, 7, 32, 32), 0.6, requires_grad=True)
    pse_loss({"kernels": maps}, empty)[0].backward()
    assert torch.isfinite(maps.grad).all()


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_labels_decode_to_the_words(stride: int) -> None:
    boxes = [((80, 50), (100, 28), 10), ((200, 60), (90, 30), -15), ((130, 170), (120, 40), 0), ((230, 170), (76, 40), 0)]
    words = [cv2.boxPoints(box) for box in boxes]  # the last two touch
    kernels = pse_targets(sample(words, size=(256, 320)))["kernels"].astype(np.float32)
    maps = np.stack([cv2.resize(kernel, (320 // stride, 256 // stride), interpolation=cv2.INTER_AREA) for kernel in kernels])
    decode = psenet(stride=stride).decode
    (found,) = decode({"kernels": maps[None]}, [(512, 640)], Thresholds(score_threshold=0.5))
    assert len(found.polygons) == len(words)
    for word in words:
        assert max(overlap(2 * word + 0.5, polygon) for polygon in found.polygons) > 0.8


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """IoU by counting pixels."""
    first, second = (cv2.fillPoly(np.zeros((520, 650), np.uint8), [np.rint(polygon).astype(np.int32)], 1) for polygon in (a, b))
    return (first & second).sum() / (first | second).sum()


def test_areas_are_counted_in_pixels_of_the_input() -> None:
    kernels = np.zeros((1, 7, 40, 60), np.float32)
    kernels[..., 4:14, 4:9] = 0.95  # 50 pixels of the map, 800 of the input
    kernels[0, 0, 5:, :] = 0  # S_1: 5 pixels, 80 of the input
    assert len(pse_decode({"kernels": kernels}, [(160, 240)], Thresholds())[0].polygons) == 1
    assert pse_decode({"kernels": kernels}, [(160, 240)], Thresholds(min_area=801))[0].polygons == []
    assert pse_decode({"kernels": kernels}, [(160, 240)], Thresholds(min_kernel_area=81))[0].polygons == []
    with pytest.raises(ValueError, match="kernels"):
        pse_decode({"kernels": kernels[:, :5]}, [(160, 240)], Thresholds())


def test_maps_of_each_mode() -> None:
    torch.manual_seed(0)
    algorithm = psenet(backbone={"name": "resnet18", "width": 0.125}, neck={"name": "fpn", "channels": 16}, kernels=5, stride=2)
    network = algorithm.network().eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        exported = network(images)
        network.training = True
        everything = network(images)
    assert {name: tuple(maps.shape) for name, maps in exported.items()} == {"kernels": (2, 5, 32, 48)}
    assert {name: tuple(maps.shape) for name, maps in everything.items()} == {"kernels": (2, 5, 64, 96)}
    assert 0 < float(everything["kernels"].min()) < float(everything["kernels"].max()) < 1
    assert set(algorithm.copies) <= everything.keys()


def test_targets_and_decode_travel_to_worker_processes() -> None:
    algorithm = psenet(kernels=3, min_scale=0.5)
    targets, decode = pickle.loads(pickle.dumps((algorithm.targets, algorithm.decode)))
    assert targets(sample([upright(20, 30, 100, 40)]))["kernels"].shape == (3, 160, 200)
    assert decode({"kernels": np.zeros((1, 3, 8, 8), np.float32)}, [(32, 32)], Thresholds())[0].polygons == []
