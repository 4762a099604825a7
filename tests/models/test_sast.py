"""SAST: labels, loss against loops over pixels, decoding against one pixel after another, and words that come back from their labels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from shapely.geometry import Polygon

from compress.models.contract import Sample, Words
from compress.models.networks.sast import sast_loss
from compress.models.sast import MAPS, LossWeights, Thresholds, nearest, sast, sast_decode, sast_targets

SIZE = (160, 240)


def sample(polygons: list, ignore: list[bool] | None = None, size: tuple[int, int] = SIZE) -> Sample:
    arrays = [np.array(polygon, np.float32) for polygon in polygons]
    flags = np.array(ignore if ignore is not None else [False] * len(arrays), bool)
    return Sample("image", np.zeros((*size, 3), np.uint8), Words(arrays, flags))


def upright(left: float, top: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


def arc(centre: tuple[float, float], radius: float, height: float, turn: float, points: int) -> np.ndarray:
    """A word on an arc: `points` corners above it from left to right, as many below from right to left."""
    angles = np.linspace(-np.pi / 2 - turn / 2, -np.pi / 2 + turn / 2, points)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.concatenate([circle * (radius + height / 2), circle[::-1] * (radius - height / 2)]) + centre


def perfect(targets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a network without any error would give for labels."""
    return {name: targets[name][None].astype(np.float32) for name in MAPS}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    first, second = Polygon(a).buffer(0), Polygon(b).buffer(0)
    return first.intersection(second).area / first.union(second).area


QUADS = [cv2.boxPoints(box)[[1, 2, 3, 0]] for box in (((60, 30), (90, 24), 8), ((170, 40), (100, 30), -14), ((120, 120), (30, 20), 3))]


def test_quads_come_back_from_their_labels() -> None:
    (found,) = sast_decode(perfect(sast_targets(sample(QUADS))), [SIZE], Thresholds())
    assert len(found.polygons) == len(QUADS)
    assert all(polygon.shape == (4, 2) for polygon in found.polygons)
    for quad in QUADS:
        assert max(iou(quad, polygon) for polygon in found.polygons) > 0.85


def test_curves_come_back_from_their_labels_as_polygons() -> None:
    words = [arc((70, 130), 70, 22, 1.8, 7), arc((180, 120), 60, 20, 1.2, 6)]
    maps = perfect(sast_targets(sample(words)))
    (found,) = sast_decode(maps, [SIZE], Thresholds(polygons=True))
    assert len(found.polygons) == len(words)
    for word in words:
        assert max(iou(word, polygon) for polygon in found.polygons) > 0.8
    (quads,) = sast_decode(maps, [SIZE], Thresholds())
    assert max(iou(words[0], polygon) for polygon in quads.polygons) < 0.6


def test_synthetic_images_come_back_from_their_labels() -> None:
    from compress.data.detection.synthetic import draw

    for index, curved in ((0, 0.0), (1, 0.0), (2, 1.0), (3, 1.0)):
        annotation, image = draw(0, "val", index, 320, curved)
        maps = perfect(sast_targets(Sample("synthetic", image, annotation.truth)))
        (found,) = sast_decode(maps, [image.shape[:2]], Thresholds(polygons=True))
        words = [word for word, ignored in zip(annotation.truth.polygons, annotation.truth.ignore, strict=True) if not ignored]
        assert len(found.polygons) == len(words)
        for word in words:
            assert max(iou(word, polygon) for polygon in found.polygons) > 0.7


def test_a_larger_image_gets_larger_polygons() -> None:
    maps = perfect(sast_targets(sample(QUADS)))
    (small,), (large,) = (sast_decode(maps, [size], Thresholds()) for size in (SIZE, (3 * SIZE[0], 3 * SIZE[1])))
    for one, other in zip(small.polygons, large.polygons, strict=True):
        # Between centres of pixels, that of the first at 0.
        np.testing.assert_allclose(3 * (one + 0.5) - 0.5, other, atol=1e-3)


def test_labels_of_an_upright_word() -> None:
    maps = sast_targets(sample([upright(21.5, 41.5, 120, 40)]))
    assert {name: (array.shape, array.dtype.name) for name, array in maps.items()} == {
        "score": ((1, 40, 60), "uint8"),
        "border": ((4, 40, 60), "float32"),
        "tvo": ((8, 40, 60), "float32"),
        "tco": ((2, 40, 60), "float32"),
        "height": ((1, 40, 60), "float32"),
        "mask": ((1, 40, 60), "uint8"),
    }
    # In pixels of the maps the word is 5 to 35 wide and 10 to 20 high; its centre line 13.5 to 16.5 high, 1.5 shorter at each end.
    expected = np.zeros((40, 60), np.uint8)
    expected[14:17, 7:34] = 1
    rows, columns = maps["score"][0].nonzero()
    assert np.abs(maps["score"][0].astype(int) - expected)[15:16].sum() <= 2
    assert rows.min() in (13, 14)
    assert rows.max() in (16, 17)
    assert columns.min() in (6, 7)
    assert columns.max() in (33, 34)
    at = maps["score"][0].astype(bool)
    x, y = columns.astype(np.float32), rows.astype(np.float32)
    zero = np.zeros_like(x)
    np.testing.assert_allclose(maps["border"][:, at], [zero, 10 - y, zero, 20 - y], atol=1e-5)
    np.testing.assert_allclose(maps["tvo"][:, at], [5 - x, 10 - y, 35 - x, 10 - y, 35 - x, 20 - y, 5 - x, 20 - y], atol=1e-5)
    np.testing.assert_allclose(maps["tco"][:, at], [20 - x, 15 - y], atol=1e-5)
    np.testing.assert_allclose(maps["height"][0][at], 10)
    for name in ("border", "tvo", "tco"):
        assert not maps[name][:, ~at].any()


def test_border_points_lie_on_the_sides_of_a_slanted_word() -> None:
    quad = np.array([(20, 40), (200, 20), (210, 70), (40, 100)], np.float32)
    maps = sast_targets(sample([quad]))
    rows, columns = maps["score"][0].nonzero()
    on_map = (quad + 0.5) / 4 - 0.5
    for channel, (start, end) in ((0, (0, 1)), (2, (3, 2))):
        line = on_map[end] - on_map[start]
        points = np.stack([columns, rows], 1) + maps["border"][channel : channel + 2, rows, columns].T
        away = (points - on_map[start]) @ np.array([-line[1], line[0]]) / np.linalg.norm(line)
        np.testing.assert_allclose(away, 0, atol=1e-4)


def test_a_mirrored_word_has_its_upper_side_above_and_a_tall_one_lies_on_its_side() -> None:
    word = np.array(upright(40, 40, 120, 40), np.float32)
    mirrored = word[[1, 0, 3, 2]]
    for name, maps in sast_targets(sample([word])).items():
        np.testing.assert_array_equal(sast_targets(sample([mirrored]))[name], maps)
    tall = sast_targets(sample([upright(40, 20, 30, 120)]))
    rows, columns = tall["score"][0].nonzero()
    assert np.ptp(rows) > 4 * np.ptp(columns)


def test_outlines_that_are_no_strips_become_rectangles() -> None:
    rectangle = np.array(upright(40, 40, 120, 40), np.float32)
    odd = np.insert(rectangle, 1, (100, 40), 0)
    across = np.array([(160, 40), (160, 60), (160, 80), (40, 80), (40, 60), (40, 40)])  # one half is the right side, the other the left
    crossing = np.array([(40, 40), (160, 40), (60, 40), (160, 80), (150, 80), (40, 80)])
    expected = perfect(sast_targets(sample([rectangle])))
    for polygon in (odd, across, crossing):
        maps = perfect(sast_targets(sample([polygon])))
        for name in MAPS:
            np.testing.assert_allclose(maps[name], expected[name], atol=1e-4)


def test_words_that_are_not_judged_are_masked_and_leave_no_other_trace() -> None:
    maps = sast_targets(sample([upright(21.5, 41.5, 100, 40), upright(150, 100, 30, 5)], [True, False]))
    assert not any(maps[name].any() for name in MAPS)
    assert (maps["mask"][0, 11:20, 6:30] == 0).all()
    assert (maps["mask"][0, 25, 38:44] == 0).all()
    assert maps["mask"].mean() > 0.8


def test_pixels_go_to_the_nearest_centre_whatever_the_chunk(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    points, centres = rng.normal(size=(2, 50)), rng.normal(size=(2, 7))
    expected = [min(range(7), key=lambda word: np.hypot(*(points[:, pixel] - centres[:, word]))) for pixel in range(50)]
    np.testing.assert_array_equal(nearest(points, centres), expected)
    monkeypatch.setattr("compress.models.sast.CHUNK", 20)
    np.testing.assert_array_equal(nearest(points, centres), expected)


def plain_decode(outputs: dict[str, np.ndarray], thresholds: Thresholds) -> list[tuple[np.ndarray, float]]:
    """One pixel, quad and word after the other, in pixels of the maps."""
    score, border, tvo, tco = (outputs[name][0].astype(float) for name in MAPS)
    pixels = [(x, y) for y in range(score.shape[1]) for x in range(score.shape[2]) if score[0, y, x] > thresholds.bin_threshold]
    candidates: list[list] = []
    for x, y in pixels:
        quad = np.array([(x + tvo[2 * i, y, x], y + tvo[2 * i + 1, y, x]) for i in range(4)])
        turns = [np.linalg.det([quad[i - 2] - quad[i - 3], quad[i - 1] - quad[i - 2]]) for i in range(4)]
        if min(turns) <= 0:
            continue
        if candidates and iou(candidates[-1][0], quad) > thresholds.nms_threshold:
            mean, weight = candidates[-1]
            candidates[-1] = [(mean * weight + quad * score[0, y, x]) / (weight + score[0, y, x]), weight + score[0, y, x]]
        else:
            candidates.append([quad, score[0, y, x]])
    quads: list[np.ndarray] = []
    for quad, _ in sorted(candidates, key=lambda candidate: -candidate[1])[: thresholds.max_candidates]:
        if all(iou(quad, other) <= thresholds.nms_threshold for other in quads):
            quads.append(quad)
    members: list[list] = [[] for _ in quads]
    for x, y in pixels:
        apart = [np.hypot(*(quad.mean(0) - (x + tco[0, y, x], y + tco[1, y, x]))) for quad in quads]
        if quads:
            members[int(np.argmin(apart))].append((x, y))
    found = []
    for quad, own in zip(quads, members, strict=True):
        filled, area = sum(score[0, y, x] for x, y in own), Polygon(quad).area
        if not own or 16 * area < thresholds.min_area or filled < thresholds.min_fill * area:
            continue
        if filled / len(own) < thresholds.score_threshold:
            continue
        axis = (quad[1] + quad[2] - quad[0] - quad[3]) / 2
        axis /= np.linalg.norm(axis)
        own = sorted(own, key=lambda at: np.dot(at, axis))
        uppers = [np.array([x + border[0, y, x], y + border[1, y, x]]) for x, y in own]
        lowers = [np.array([x + border[2, y, x], y + border[3, y, x]]) for x, y in own]
        height = np.mean([np.hypot(*(lower - upper)) for upper, lower in zip(uppers, lowers, strict=True)])
        count = 2
        if thresholds.polygons:
            count = max(2, round(2 * (np.dot(own[-1], axis) - np.dot(own[0], axis)) / max(height, 1)) + 1)
        places = [place * (len(own) - 1) // (count - 1) for place in range(count)]
        upper, lower = [uppers[place] for place in places], [lowers[place] for place in places]
        middles = [(a + b) / 2 for a, b in zip(upper, lower, strict=True)]
        for end, inner, sign in ((0, 1, -1), (-1, -2, 1)):
            outwards = middles[end] - middles[inner]
            length = np.hypot(*outwards)
            shift = (outwards / length if length > 1e-6 else sign * axis) * thresholds.expand_ratio * height
            upper[end], lower[end] = upper[end] + shift, lower[end] + shift
        found.append((np.array(upper + lower[::-1]), filled / len(own)))
    return sorted(found, key=lambda word: -word[1])


def random_maps(seed: int) -> dict[str, np.ndarray]:
    """Blobs of pixels with quads, centres and borders that agree here and contradict each other there."""
    rng = np.random.default_rng(seed)
    shape = (16, 24)

    def smooth(channels: int, wide: float, strength: float) -> np.ndarray:
        noise = np.stack([cv2.GaussianBlur(rng.normal(size=shape), (0, 0), wide) for _ in range(channels)])
        return strength * noise / noise.std()

    score = 1 / (1 + np.exp(-smooth(1, 1.5, 2.0)))
    corners = np.array([-6, -3, 6, -3, 6, 3, -6, 3])[:, None, None]
    rows = np.array([0, -3, 0, 3])[:, None, None]
    maps = {
        "score": score,
        "border": rows + smooth(4, 1.0, 0.5),
        "tvo": corners + smooth(8, 0.8, 1.3) + np.tile(smooth(2, 3.0, 3.0), (4, 1, 1)),
        "tco": smooth(2, 2.0, 3.0),
    }
    return {name: array[None].astype(np.float32) for name, array in maps.items()}


@pytest.mark.parametrize(
    "thresholds",
    [Thresholds(min_area=0), Thresholds(min_area=0, polygons=True, nms_threshold=0.4), Thresholds(0.6, 0.1, 0.7, 0.05, 900, 0.3, 6, True)],
)
def test_decoding_equals_one_pixel_after_another(thresholds: Thresholds) -> None:
    words = 0
    for seed in range(2):
        maps = random_maps(seed)
        size = 4 * maps["score"].shape[2], 4 * maps["score"].shape[3]
        (found,) = sast_decode(maps, [size], thresholds)
        expected = plain_decode(maps, thresholds)
        assert len(found.polygons) == len(expected)
        for polygon, (corners, _) in zip(found.polygons, expected, strict=True):
            np.testing.assert_allclose(polygon, np.clip((corners + 0.5) * 4 - 0.5, 0, size[::-1]), atol=2e-3)
        np.testing.assert_allclose(found.scores, [score for _, score in expected], atol=1e-6)
        words += len(expected)
    assert words > 3


def test_no_text_and_text_everywhere_are_decoded() -> None:
    empty = {name: np.zeros((1, channels, 24, 32), np.float32) for name, channels in MAPS.items()}
    assert sast_decode(empty, [(96, 128)], Thresholds())[0].polygons == []
    rng = np.random.default_rng(0)
    noise = {name: (10 * rng.normal(size=array.shape)).astype(np.float32) for name, array in empty.items()}
    noise["score"] = np.ones_like(noise["score"])
    (found,) = sast_decode(noise, [(96, 128)], Thresholds(polygons=True, min_fill=0))
    for polygon in found.polygons:
        assert np.isfinite(polygon).all()
        assert (polygon >= 0).all()
        assert (polygon <= (128, 96)).all()


def test_wrong_thresholds_and_maps_are_refused_by_name() -> None:
    for wrong in ({"nms_threshold": 1.5}, {"min_fill": -0.1}, {"expand_ratio": -1}, {"max_candidates": 0}, {"min_area": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Thresholds(**wrong)
    maps = {name: np.zeros((1, channels, 8, 8), np.float32) for name, channels in MAPS.items()}
    with pytest.raises(ValueError, match="tvo"):
        sast_decode({**maps, "tvo": np.zeros((1, 4, 8, 8))}, [(32, 32)], Thresholds())
    with pytest.raises(ValueError, match="one size"):
        sast_decode({**maps, "tco": np.zeros((1, 2, 8, 9))}, [(32, 32)], Thresholds())
    with pytest.raises(ValueError, match="finite"):
        sast_decode({**maps, "border": np.full((1, 4, 8, 8), np.nan)}, [(32, 32)], Thresholds())


def batch() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Two images with words, one of which is do-not-care, and one without; maps at random."""
    labels = [sast_targets(one) for one in (sample(QUADS, [False, True, False]), sample([upright(30, 50, 60, 30)]), sample([]))]
    targets = {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in labels[0]}
    generator = torch.Generator().manual_seed(0)
    outputs = {name: torch.randn(3, channels, 40, 60, generator=generator) for name, channels in MAPS.items()}
    return {**outputs, "score": outputs["score"].sigmoid()}, targets


def test_the_loss_equals_a_loop_over_pixels() -> None:
    outputs, targets = batch()
    total, parts = sast_loss(outputs, targets, LossWeights())
    sums, count = dict.fromkeys(("border", "tvo", "tco"), 0.0), 0
    for image, _, y, x in (targets["score"] * targets["mask"]).nonzero().tolist():
        count += 1
        for name in sums:
            apart = (outputs[name][image, :, y, x] - targets[name][image, :, y, x]).abs()
            smooth = torch.where(apart < 1, 0.5 * apart**2, apart - 0.5).mean()
            sums[name] += float(smooth / targets["height"][image, 0, y, x]) * (2 if name == "border" else 1)
    assert count > 50
    for name, value in sums.items():
        assert float(parts[name]) == pytest.approx(value / count, rel=1e-4)
    p, t = outputs["score"] * targets["mask"], targets["score"] * targets["mask"]
    assert float(parts["score"]) == pytest.approx(float(1 - 2 * (p * t).sum() / ((p**2).sum() + (t**2).sum())), rel=1e-5)
    torch.testing.assert_close(total, parts["score"] + parts["border"] + 1.5 * parts["tvo"] + 1.5 * parts["tco"])


def test_perfect_maps_have_no_loss_and_masked_pixels_do_not_matter() -> None:
    outputs, targets = batch()
    right = {name: targets[name].float() for name in MAPS}
    assert float(sast_loss(right, targets, LossWeights())[0]) < 1e-5
    hidden = {name: torch.where(targets["mask"] > 0, maps, torch.full_like(maps, 0.3)) for name, maps in outputs.items()}
    assert not torch.equal(hidden["score"], outputs["score"])
    torch.testing.assert_close(sast_loss(hidden, targets, LossWeights())[0], sast_loss(outputs, targets, LossWeights())[0])


def test_a_batch_without_words_has_a_finite_loss_and_gradient() -> None:
    outputs, targets = batch()
    score = outputs["score"].clone().requires_grad_()
    empty = {name: torch.zeros_like(tensor) for name, tensor in targets.items()} | {
        "mask": torch.ones_like(targets["mask"]),
        "height": torch.ones_like(targets["height"]),
    }
    total, parts = sast_loss({**outputs, "score": score}, empty, LossWeights())
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(score.grad).all()
    assert float(parts["border"]) == float(parts["tvo"]) == float(parts["tco"]) == 0


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenet_v3_small"])
def test_maps_of_each_mode(backbone: str) -> None:
    torch.manual_seed(0)
    algorithm = sast(backbone={"name": backbone, "width": 0.25}, neck={"name": "cab_fpn", "channels": 16, "blocks": 1})
    network = algorithm.network().eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        exported = network(images)
        network.training = True
        everything = network(images)
    for maps in (exported, everything):
        assert {name: tuple(array.shape) for name, array in maps.items()} == {name: (2, n, 16, 24) for name, n in MAPS.items()}
    assert 0 < float(exported["score"].min()) < float(exported["score"].max()) < 1
    assert set(algorithm.copies) <= everything.keys()
