"""PAN: labels, loss against loops over words, and pixel aggregation against a queue."""

from __future__ import annotations

from collections import deque
from itertools import permutations

import cv2
import numpy as np
import pytest
import torch

from compress.models.contract import Sample, Words
from compress.models.networks.pan import pan_loss
from compress.models.pan import LossWeights, Thresholds, pan, pan_decode, pan_targets, pixel_aggregation

NEIGHBOURS = ((-1, 0), (0, -1), (0, 1), (1, 0))


def sample(polygons: list, ignore: list[bool] | None = None, size: tuple[int, int] = (160, 200)) -> Sample:
    arrays = [np.array(polygon, np.float32) for polygon in polygons]
    flags = np.array(ignore if ignore is not None else [False] * len(arrays), bool)
    return Sample("image", np.zeros((*size, 3), np.uint8), Words(arrays, flags))


def upright(left: float, top: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


def plain_aggregation(text: np.ndarray, kernel: np.ndarray, similarity: np.ndarray, distance: float) -> np.ndarray:
    """Section 3.4 with a queue, the highest label first in it."""
    _, labels = cv2.connectedComponents((text & kernel).astype(np.uint8), connectivity=4)
    means = {label: similarity[:, labels == label].astype(float).mean(1) for label in np.unique(labels) if label}
    queue = deque(sorted(np.argwhere(labels > 0).tolist(), key=lambda at: -labels[tuple(at)]))
    while queue:
        y, x = queue.popleft()
        for dy, dx in NEIGHBOURS:
            v, u = y + dy, x + dx
            if not (0 <= v < text.shape[0] and 0 <= u < text.shape[1]) or not text[v, u] or labels[v, u]:
                continue
            if np.linalg.norm(similarity[:, v, u] - means[labels[y, x]]) < distance:
                labels[v, u] = labels[y, x]
                queue.append((v, u))
    return labels


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0, 100.0])
@pytest.mark.parametrize("smooth", [0.0, 1.5])
def test_aggregation_equals_a_queue(distance: float, smooth: float) -> None:
    labelled = set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        height = rng.normal(size=(30, 44))
        height = cv2.GaussianBlur(height, (0, 0), smooth) if smooth else height
        height /= height.std()
        similarity = rng.normal(size=(4, 30, 44)).astype(np.float32)
        maps = height > -0.6, height > 1.0
        ours = pixel_aggregation(*maps, similarity, distance)
        np.testing.assert_array_equal(ours, plain_aggregation(*maps, similarity, distance))
        labelled.add(int((ours > 0).sum()) - int(maps[1].sum()))
    assert (labelled == {0}) == (distance == 0)


def test_similarity_parts_words_that_touch() -> None:
    text, kernel = np.ones((6, 20), bool), np.zeros((6, 20), bool)
    kernel[2:4, 2:4] = kernel[2:4, 12:14] = True
    similarity = np.zeros((4, 6, 20), np.float32)
    similarity[0, :, 10:] = 5
    labels = pixel_aggregation(text, kernel, similarity, 3.0)
    np.testing.assert_array_equal(labels, np.repeat([[1] * 10 + [2] * 10], 6, 0))
    assert len(np.unique(pixel_aggregation(text, kernel, similarity, 3.0, min_area=5))) == 1


def test_texts_and_kernels_carry_the_numbers_of_their_words() -> None:
    maps = pan_targets(sample([upright(20, 30, 100, 40), upright(20, 100, 60, 30)]))
    assert {name: (array.shape, array.dtype.name) for name, array in maps.items()} == {
        "text": ((1, 160, 200), "int16"),
        "kernel": ((1, 160, 200), "int16"),
        "mask": ((1, 160, 200), "uint8"),
    }
    distance = 100 * 40 * (1 - 0.5**2) / (2 * 140)
    expected = np.zeros((160, 200), np.int16)
    expected[30:71, 20:121] = 1
    expected[100:131, 20:81] = 2
    np.testing.assert_array_equal(maps["text"][0], expected)
    rows, columns = np.nonzero(maps["kernel"][0] == 1)
    ends = [rows.min(), rows.max(), columns.min(), columns.max()]
    np.testing.assert_allclose(ends, [30 + distance, 70 - distance, 20 + distance, 120 - distance], atol=1)
    assert set(np.unique(maps["kernel"])) == {0, 1, 2}


def test_words_that_are_not_judged_are_masked_and_leave_no_other_trace() -> None:
    maps = pan_targets(sample([upright(20, 30, 100, 40), upright(150, 100, 30, 5), [(5, 5)] * 4], [True, False, False]))
    assert not maps["text"].any()
    assert not maps["kernel"].any()
    expected = np.ones((160, 200), np.uint8)
    expected[30:71, 20:121] = expected[100:106, 150:181] = expected[5, 5] = 0
    np.testing.assert_array_equal(maps["mask"][0], expected)


def batch(seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Two images of different words and one without any; random maps."""
    rng = np.random.default_rng(seed)
    samples = [
        sample([upright(4, 4, 30, 12), upright(4, 24, 34, 14), upright(44, 20, 16, 30)], [False, False, True], (56, 64)),
        sample([upright(10, 10, 40, 20)], size=(56, 64)),
        sample([], size=(56, 64)),
    ]
    labels = [pan_targets(sample) for sample in samples]
    targets = {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in labels[0]}
    outputs = {name: torch.from_numpy(rng.random((3, 1, 56, 64), np.float32)) for name in ("text", "kernel")}
    outputs["similarity"] = torch.from_numpy(rng.normal(0, 1, (3, 4, 56, 64)).astype(np.float32))
    return outputs, targets


def test_similarity_losses_equal_loops_over_words() -> None:
    outputs, targets = batch(0)
    _, parts = pan_loss(outputs, targets, LossWeights())
    aggregation, discrimination = [], []
    for similarity, text, kernel in zip(outputs["similarity"].numpy(), targets["text"].numpy(), targets["kernel"].numpy(), strict=True):
        means = {word: similarity[:, kernel[0] == word].mean(1) for word in np.unique(kernel) if word}
        of_words = []
        for word, mean in means.items():
            far = np.linalg.norm(similarity[:, text[0] == word] - mean[:, None], axis=0)
            of_words.append(np.log(np.maximum(far - 0.5, 0) ** 2 + 1).mean())
        of_pairs = [np.log(max(3 - np.linalg.norm(means[a] - means[b]), 0) ** 2 + 1) for a, b in permutations(means, 2)]
        aggregation += [np.mean(of_words)] if of_words else []
        discrimination += [np.mean(of_pairs)] if of_pairs else []
    assert len(aggregation) == 2
    assert len(discrimination) == 1
    assert float(parts["aggregation"]) == pytest.approx(np.mean(aggregation), rel=1e-5)
    assert float(parts["discrimination"]) == pytest.approx(np.mean(discrimination), rel=1e-5)


def test_the_total_is_the_weighted_sum_and_masked_pixels_do_not_matter() -> None:
    outputs, targets = batch(1)
    weights = LossWeights(kernel=0.4, aggregation=0.3)
    total, parts = pan_loss(outputs, targets, weights)
    torch.testing.assert_close(
        total, parts["text"] + 0.4 * parts["kernel"] + 0.3 * (parts["aggregation"] + parts["discrimination"]), rtol=1e-5, atol=1e-6
    )
    hidden = {name: torch.where(targets["mask"] > 0, maps, torch.full_like(maps, 0.5)) for name, maps in outputs.items()}
    torch.testing.assert_close(pan_loss(hidden, targets, weights)[0], total)


def test_kernels_are_judged_inside_the_labelled_text_alone() -> None:
    outputs, targets = batch(2)
    _, parts = pan_loss(outputs, targets, LossWeights())
    outputs["kernel"] = torch.where(targets["text"] > 0, outputs["kernel"], torch.rand_like(outputs["kernel"]))
    torch.testing.assert_close(pan_loss(outputs, targets, LossWeights())[1]["kernel"], parts["kernel"])
    outputs["kernel"] = (targets["kernel"] > 0).float()
    perfect = pan_loss(outputs, targets, LossWeights())[1]["kernel"]
    assert float(perfect) == pytest.approx(1 / 3, abs=1e-5)  # the image without words counts as missed


def test_gradients_are_finite_where_vectors_are_equal_and_where_there_is_no_text() -> None:
    outputs, targets = batch(3)
    outputs["similarity"] = torch.zeros_like(outputs["similarity"], requires_grad=True)
    pan_loss(outputs, targets, LossWeights())[0].backward()
    assert torch.isfinite(outputs["similarity"].grad).all()
    empty = {name: torch.zeros_like(tensor) for name, tensor in targets.items()}
    total, parts = pan_loss(outputs, empty, LossWeights())
    assert torch.isfinite(total)
    assert float(parts["aggregation"]) == float(parts["discrimination"]) == 0


def test_descending_the_loss_draws_vectors_of_a_word_together_and_words_apart() -> None:
    outputs, targets = batch(4)
    vectors = (0.1 * outputs["similarity"]).requires_grad_()
    optimizer = torch.optim.Adam([vectors], 0.1)
    for _ in range(60):
        total, parts = pan_loss({**outputs, "similarity": vectors}, targets, LossWeights())
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert parts["aggregation"] < 0.05
    assert parts["discrimination"] < 0.05


def test_labels_decode_to_the_words() -> None:
    words = [cv2.boxPoints(box) for box in (((80, 50), (100, 28), 10), ((130, 170), (120, 40), 0), ((230, 170), (76, 40), 0))]
    maps = pan_targets(sample(words, size=(256, 320)))
    text, kernel = (
        cv2.resize((maps[name][0] > 0).astype(np.float32), (80, 64), interpolation=cv2.INTER_AREA)[None, None]
        for name in ("text", "kernel")
    )
    outputs = {"text": text, "kernel": kernel, "similarity": np.zeros((1, 4, 64, 80), np.float32)}
    (found,) = pan_decode(outputs, [(256, 320)], Thresholds(score_threshold=0.5))
    assert len(found.polygons) == len(words)
    for word in words:
        assert max(overlap(word, polygon) for polygon in found.polygons) > 0.8
    assert pan_decode(outputs, [(256, 320)], Thresholds(score_threshold=0.5, min_area=10_000))[0].polygons == []


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """IoU by counting pixels."""
    first, second = (cv2.fillPoly(np.zeros((260, 330), np.uint8), [np.rint(polygon).astype(np.int32)], 1) for polygon in (a, b))
    return (first & second).sum() / (first | second).sum()


def test_wrong_thresholds_and_maps_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="distance"):
        Thresholds(distance=-1)
    outputs = {"text": np.zeros((1, 1, 8, 8)), "kernel": np.zeros((1, 1, 8, 8)), "similarity": np.zeros((1, 3, 8, 8))}
    with pytest.raises(ValueError, match="similarity"):
        pan_decode(outputs, [(32, 32)], Thresholds())


def test_maps_of_each_mode() -> None:
    torch.manual_seed(0)
    algorithm = pan(backbone={"name": "resnet18", "width": 0.125}, neck={"name": "fpem_ffm", "channels": 16})
    network = algorithm.network().eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        exported = network(images)
        network.training = True
        everything = network(images)
    channels = {"text": 1, "kernel": 1, "similarity": 4}
    assert {name: tuple(maps.shape) for name, maps in exported.items()} == {name: (2, n, 16, 24) for name, n in channels.items()}
    assert {name: tuple(maps.shape) for name, maps in everything.items()} == {name: (2, n, 64, 96) for name, n in channels.items()}
    for name in ("text", "kernel"):
        assert 0 < float(everything[name].min()) < float(everything[name].max()) < 1
    assert set(algorithm.copies) <= everything.keys()
