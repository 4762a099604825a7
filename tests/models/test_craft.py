"""CRAFT: labels against loops over pixels, loss against sorting, boxes against dilating whole maps."""

from __future__ import annotations

import math
import pickle

import cv2
import numpy as np
import pytest
import torch
from shapely.geometry import MultiPoint, Polygon

from compress.models.contract import Sample, Words
from compress.models.craft import ENLARGED, SIGMA, Settings, affinity_cells, character_cells, craft, craft_decode, craft_targets
from compress.models.networks.craft import CRAFTNet, craft_loss


def sample(words: list, texts: list[str] | None = None, ignore: list[bool] | None = None, size: tuple[int, int] = (96, 160)) -> Sample:
    arrays = [np.array(word, np.float32) for word in words]
    flags = np.array(ignore if ignore is not None else [False] * len(arrays), bool)
    return Sample("image", np.zeros((*size, 3), np.uint8), Words(arrays, flags, texts or []))


def upright(left: float, top: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


SLANTED = [(20.0, 40.0), (130.0, 12.0), (138.0, 50.0), (24.0, 70.0)]


def homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The (3, 3) matrix that takes four points to four others, by the eight equations that say so."""
    rows, right = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.append(np.linalg.solve(rows, right), 1).reshape(3, 3)


def plain_map(cells: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """A Gaussian at every pixel of every cell, enlarged about its centre."""
    canvas = np.zeros(shape)
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * ENLARGED / 2
    for cell in cells:
        centre = cell.mean(0)
        matrix = homography(centre + (cell - centre) * ENLARGED, square)
        for y in range(shape[0]):
            for x in range(shape[1]):
                u, v, w = matrix @ (x, y, 1)
                u, v = u / w, v / w
                if max(abs(u), abs(v)) <= ENLARGED / 2:
                    canvas[y, x] = max(canvas[y, x], math.exp(-(u * u + v * v) / (2 * SIGMA**2)))
    return canvas


def cut(quad: np.ndarray, start: float, end: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """The part of a quad from one share of its length to another and from one share of its height to another."""

    def at(along: float, down: float) -> np.ndarray:
        return (1 - down) * ((1 - along) * quad[0] + along * quad[1]) + down * ((1 - along) * quad[3] + along * quad[2])

    return np.array([at(start, low), at(end, low), at(end, high), at(start, high)])


@pytest.mark.parametrize("word", [upright(20, 30, 90, 28), SLANTED])
@pytest.mark.parametrize("text", ["A", "words", "eleven long"])
def test_labels_equal_loops_over_pixels(word, text: str) -> None:
    maps = craft_targets(sample([word], [text]))
    quad = (np.array(word) + 0.5) / 2 - 0.5
    n = len(text)
    region = plain_map([cut(quad, i / n, (i + 1) / n) for i in range(n)], (48, 80))
    # Of equal cells the triangles' centres are a sixth of the height from the sides, in the middle of each cell.
    between = plain_map([cut(quad, (i + 0.5) / n, (i + 1.5) / n, 1 / 6, 5 / 6) for i in range(n - 1)], (48, 80))
    np.testing.assert_allclose(maps["region"][0], region, atol=0.02)
    np.testing.assert_allclose(maps["affinity"][0], between, atol=0.04)
    assert maps["region"].max() > 0.9
    assert maps["mask"].all()
    assert {name: (array.shape, array.dtype.name) for name, array in maps.items()} == {
        "region": ((1, 48, 80), "float32"),
        "affinity": ((1, 48, 80), "float32"),
        "mask": ((1, 48, 80), "uint8"),
    }


def test_affinity_boxes_have_their_corners_where_diagonals_say() -> None:
    cells = character_cells(np.array([[(0, 0), (30, 0)], [(0, 12), (30, 12)]], float), 3)
    np.testing.assert_allclose(affinity_cells(cells), [[(5, 2), (15, 2), (15, 10), (5, 10)], [(15, 2), (25, 2), (25, 10), (15, 10)]])


@pytest.mark.parametrize(("width", "cells"), [(90, 3), (100, 3), (20, 1), (31, 1), (300, 10)])
def test_words_without_a_text_have_as_many_cells_as_are_about_square(width: int, cells: int) -> None:
    assert len(character_cells(np.array([[(0, 0), (width, 0)], [(0, 30), (width, 30)]], float), 0)) == cells


def test_mirroring_an_image_mirrors_its_labels() -> None:
    word = np.array(SLANTED)
    mirrored = np.column_stack([159 - word[:, 0], word[:, 1]])
    ours, theirs = craft_targets(sample([word], ["text"])), craft_targets(sample([mirrored], ["text"]))
    for name in ("region", "affinity"):
        np.testing.assert_allclose(theirs[name][..., ::-1], ours[name], atol=0.02)


def arc(radius: float, height: float, size: int) -> np.ndarray:
    """A word along an upper half circle around the image's lower middle, 14 corners."""
    angles = np.linspace(np.pi * 0.9, np.pi * 0.1, 7)
    ring = np.stack([np.cos(angles), -np.sin(angles)], 1)
    return np.vstack([ring * (radius + height), (ring * radius)[::-1]]) + np.array([size / 2, size * 0.8])


def test_characters_of_a_curved_word_lie_along_it() -> None:
    maps = craft_targets(sample([arc(80, 24, 256)], ["abcdefgh"], size=(256, 256)))
    rows, columns = np.nonzero(maps["region"][0] > 0.7)
    radii = np.hypot(2 * columns + 0.5 - 128, 2 * rows + 0.5 - 204.8)
    assert radii.min() > 82
    assert radii.max() < 102
    count, _ = cv2.connectedComponents((maps["region"][0] > 0.7).astype(np.uint8))
    assert count == 1 + 8


def test_words_that_are_not_judged_are_masked_and_leave_no_other_trace() -> None:
    maps = craft_targets(sample([upright(20, 30, 100, 40), upright(120, 80, 30, 5)], ["###", "small"], [True, False]))
    assert not maps["region"].any()
    assert not maps["affinity"].any()
    expected = np.ones((48, 80), bool)
    expected[15:36, 10:61] = expected[40:43, 60:76] = False
    assert (maps["mask"][0].astype(bool) != expected).mean() < 0.005


def plain_part(scores: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    errors = (scores.astype(np.float64) - target) ** 2
    text, other = errors[(target > 0.1) & mask], np.sort(errors[(target <= 0.1) & mask])[::-1]
    hardest = other[: int(min(len(other), max(3 * len(text), 0.01 * len(other))))]
    return (text.mean() if len(text) else 0.0) + (hardest.mean() if len(hardest) else 0.0)


def batch(seed: int, words: bool = True) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    images = (
        [sample([upright(20, 20, 60, 24), upright(90, 30, 40, 40)], ["word", "x"], [False, True]), sample([])] if words else [sample([])]
    )
    labels = [craft_targets(image) for image in images]
    rng = np.random.default_rng(seed)
    names = ("region_scores", "affinity_scores")
    outputs = {name: torch.from_numpy(rng.normal(0.2, 0.4, (len(images), 1, 48, 80)).astype(np.float32)) for name in names}
    return outputs, {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in labels[0]}


@pytest.mark.parametrize("words", [True, False])
def test_loss_equals_sorting_all_errors(words: bool) -> None:
    outputs, targets = batch(0, words)
    loss, parts = craft_loss(outputs, targets)
    mask = targets["mask"].numpy().astype(bool)
    for name in ("region", "affinity"):
        expected = plain_part(outputs[f"{name}_scores"].numpy(), targets[name].numpy(), mask)
        assert float(parts[name]) == pytest.approx(expected, rel=1e-4)
    assert float(loss) == pytest.approx(sum(float(part) for part in parts.values()))


def test_loss_is_zero_for_the_labels_and_blind_where_masked() -> None:
    outputs, targets = batch(1)
    right = {f"{name}_scores": targets[name].clone().requires_grad_() for name in ("region", "affinity")}
    assert float(craft_loss(right, targets)[0].detach()) == 0
    hidden = targets["mask"] == 0
    assert hidden.any()
    before = craft_loss(outputs, targets)[0]
    outputs["region_scores"] = outputs["region_scores"] + 100.0 * hidden
    assert torch.equal(craft_loss(outputs, targets)[0], before)


def test_gradients_reach_text_and_the_hardest_other_pixels_alone() -> None:
    outputs, targets = batch(2)
    scores = outputs["region_scores"].requires_grad_()
    craft_loss(outputs, targets)[0].backward()
    text = (targets["region"] > 0.1) & (targets["mask"] > 0)
    assert (scores.grad[text] != 0).all()
    touched = (scores.grad != 0) & ~text
    assert abs(int(touched.sum()) - 3 * int(text.sum())) <= 1
    errors = (scores.detach() - targets["region"]).square()
    free = ~text & (targets["mask"] > 0)
    assert errors[touched].min() >= errors[free & ~touched].max()


def plain_boxes(region: np.ndarray, affinity: np.ndarray, settings: Settings) -> list[tuple[np.ndarray, float]]:
    """The pixels of every dilated word and its score, a whole map for each word, as the authors describe it."""
    text, link = region > settings.low_text, affinity > settings.link_threshold
    count, labels = cv2.connectedComponents((text | link).astype(np.uint8), connectivity=4)
    found = []
    for label in range(1, count):
        member = labels == label
        rows, columns = np.nonzero(member)
        width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
        if len(rows) < settings.min_area or not (member & text).any() or region[member & text].max() < settings.text_threshold:
            continue
        grown = int(math.sqrt(len(rows) * min(width, height) / (width * height)) * 2)
        dilated = cv2.dilate((member & text).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_RECT, (1 + grown, 1 + grown)))
        found.append((np.argwhere(dilated)[:, ::-1].astype(np.float32), float(region[member & text].max())))
    return sorted(found, key=lambda pair: -pair[1])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("settings", [Settings(0.5), Settings(0.5, 0.1, 0.2, min_area=0)])
def test_boxes_equal_those_around_dilated_maps(seed: int, settings: Settings) -> None:
    rng = np.random.default_rng(seed)
    region, affinity = (cv2.GaussianBlur(rng.random((90, 150), np.float32), (0, 0), 2.5) for _ in range(2))
    region, affinity = (((array - array.min()) / np.ptp(array) - 0.55).clip(0) * 2.2 for array in (region, affinity))
    region[:, :3] = 0.9  # to the border, where a dilated word ends
    expected = plain_boxes(region, affinity, settings)
    # A map's pixel is one of the image's, so that corners are those of the map.
    (found,) = craft_decode({"region": region[None, None], "affinity": affinity[None, None]}, [(90, 150)], settings)
    assert len(expected) > 2
    np.testing.assert_allclose(found.scores, [score for _, score in expected], rtol=1e-6)
    whole = 0
    for polygon, (points, _) in zip(found.polygons, expected, strict=True):
        box, least = Polygon(polygon), cv2.minAreaRect(points)[1]
        if max(least) <= 1.1 * min(least):
            assert box.area == pytest.approx(np.prod(np.ptp(points, 0)), abs=0.1)
        elif (polygon > 0).all() and (polygon < (150, 90)).all():  # no corner was clipped to the image
            assert box.buffer(0.02).contains(MultiPoint(points))
            assert box.area <= np.prod(least) + 0.1
            whole += 1
    assert whole > 0


WORDS = [upright(20, 20, 120, 30), [(30, 120), (140, 90), (150, 122), (36, 154)], upright(200, 60, 30, 34)]


def test_labels_of_words_decode_to_those_words() -> None:
    maps = craft_targets(sample(WORDS, ["letters", "slanted", "I"], size=(192, 256)))
    (found,) = craft_decode({name: maps[name][None] for name in ("region", "affinity")}, [(192, 256)], Settings())
    assert len(found.polygons) == len(WORDS)
    for word in WORDS:
        overlaps = [Polygon(box).intersection(Polygon(word)).area / Polygon(box).union(Polygon(word)).area for box in found.polygons]
        assert max(overlaps) > 0.65


def test_boxes_are_in_the_pixels_of_the_image() -> None:
    maps = craft_targets(sample(WORDS, ["letters", "slanted", "I"], size=(192, 256)))
    outputs = {name: np.repeat(maps[name][None], 2, 0) for name in ("region", "affinity")}
    one, twice = craft_decode(outputs, [(192, 256), (384, 256)], Settings())
    np.testing.assert_array_equal(one.scores, twice.scores)
    for first, second in zip(one.polygons, twice.polygons, strict=True):
        np.testing.assert_allclose((second + 0.5) / (1, 2) - 0.5, first, atol=1e-3)


def test_outlines_follow_a_curved_word() -> None:
    word = arc(80, 24, 256)
    maps = craft_targets(sample([word], ["abcdefghij"], size=(256, 256)))
    outputs = {name: maps[name][None] for name in ("region", "affinity")}

    def overlap(polygons: bool) -> float:
        (found,) = craft_decode(outputs, [(256, 256)], Settings(polygons=polygons))
        (polygon,) = found.polygons
        return Polygon(polygon).intersection(Polygon(word)).area / Polygon(polygon).union(Polygon(word)).area

    assert overlap(polygons=True) > 0.65 > overlap(polygons=False)


@pytest.mark.parametrize("polygons", [False, True])
def test_a_map_without_words_gives_none(polygons: bool) -> None:
    affinity = np.ones((1, 1, 20, 30), np.float32)  # links nothing
    (found,) = craft_decode({"region": np.zeros_like(affinity), "affinity": affinity}, [(40, 60)], Settings(0.0, polygons=polygons))
    assert found.polygons == []
    assert found.scores.shape == (0,)


def test_what_is_no_pair_of_maps_is_refused() -> None:
    good = np.zeros((1, 1, 8, 8), np.float32)
    for region, affinity, words in (
        (good[0], good, "`region` of shape"),
        (good * np.nan, good, "not finite"),
        (good, good[..., :4], "maps of one size"),
    ):
        with pytest.raises(ValueError, match=words):
            craft_decode({"region": region, "affinity": affinity}, [(16, 16)], Settings())


@pytest.mark.parametrize("values", [{"low_text": 1.1}, {"text_threshold": -0.1}, {"link_threshold": float("nan")}, {"min_area": -1}])
def test_settings_out_of_range_are_refused_by_name(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Settings(**values)


def test_the_network_has_the_published_layers_and_gives_half_of_the_resolution() -> None:
    network = CRAFTNet()
    # 20,770,466 of the authors, less the biases of the eight convolutions before a batch norm in the steps up.
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_770_466 - 2 * (256 + 128 + 64 + 32) - (32 + 64 + 128 + 256)
    small = CRAFTNet(0.125)
    images = torch.randn(2, 3, 64, 96)
    small.eval()
    shown = small(images)
    assert {name: tuple(tensor.shape) for name, tensor in shown.items()} == dict.fromkeys(("region", "affinity"), (2, 1, 32, 48))
    small.training = True
    training = small(images)
    for name in ("region", "affinity"):
        torch.testing.assert_close(training[name], shown[name])
        torch.testing.assert_close(training[f"{name}_scores"].clamp(0, 1), shown[name])


def test_what_workers_are_given_can_be_sent_to_them() -> None:
    algorithm = craft(width=0.125)
    network, labels, loss, decode = pickle.loads(pickle.dumps((algorithm.network, algorithm.targets, algorithm.loss, algorithm.decode)))
    outputs = network()(torch.zeros(1, 3, 32, 32))
    assert set(algorithm.copies) < outputs.keys()
    loss(outputs, {name: torch.from_numpy(array[None]) for name, array in labels(sample([], size=(32, 32))).items()})[0].backward()
    assert len(decode({name: outputs[name].detach().numpy() for name in algorithm.copies}, [(32, 32)], algorithm.settings())) == 1
