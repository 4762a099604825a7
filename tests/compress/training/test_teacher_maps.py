"""Maps of a teacher that are kept: what is in them, when they are computed, how they go through views, and what training makes of them."""

from __future__ import annotations

import copy
import dataclasses

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from compress.checkpoint import Model, fresh
from compress.data.detection.augment import Augment, augment
from compress.data.prepare import network_input
from compress.data.split import Annotation, Split
from compress.errors import CompressError
from compress.files import read_lines
from compress.lab import Lab
from compress.models.contract import Detections, Sample, Words
from compress.predictor import Predictor
from compress.recipe import load as load_recipe
from compress.stages.distill import Distill
from compress.tasks.classification import EvaluateClassification
from compress.tasks.detection import EvaluateDetection, corrected
from compress.training.lessons import as_student, recalled
from compress.training.teacher_maps import check_can_be_kept, check_can_correct, compute, kept_maps, key, taught_split

RECIPE = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 6, val: 2, test: 2, size: 64}
augment: {scales: [1.0], cover: 1.0, rotate: 0, flip: 0, brightness: 0, saturation: 0}
evaluate: {short_side: 64, bin_threshold: 0.2, box_threshold: 0.1}
stages:
  - train: {name: baseline, epochs: 1}
"""
SCHEDULE = {"name": "distilled", "epochs": 1, "batch": 3, "crop": 64, "lr": 1e-3, "precision": "fp32"}


def square(left: float, top: float, width: float, height: float) -> np.ndarray:
    return np.array([(left, top), (left + width, top), (left + width, top + height), (left, top + height)], np.float32)


class White(nn.Module):
    """Finds whatever is white: its map is the normalised image's red, brought back to 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.229, 0.485]))
        self.asked = 0

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.asked += len(images)
        probability = (images[:, :1] * self.weight[0] + self.weight[1]).clamp(0, 1)
        return {"probability": probability, "binary": 1 - probability} if self.training else {"probability": probability}


def white_teacher(short_side: int = 64) -> Model:
    model = fresh({"name": "db", "neck": {"name": "fpn", "channels": 16}}, EvaluateDetection(short_side=short_side, unclip_ratio=0))
    return model.with_network(White())


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Lab:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.yml").write_text(RECIPE)
    return Lab(load_recipe(tmp_path / "small.yml"), tmp_path / "stage", torch.device("cpu"), lambda _: white_teacher(), quiet=True)


def drawn(boxes: list[np.ndarray], size: tuple[int, int] = (64, 96)) -> np.ndarray:
    image = np.zeros((*size, 3), np.uint8)
    return cv2.fillPoly(image, [box.astype(np.int32) for box in boxes], (255, 255, 255))


def split_of(images: list[np.ndarray], truths: list[Words] | None = None, digest: str = "a") -> Split:
    truths = truths or [Words([], np.zeros(0, bool)) for _ in images]
    annotations = [Annotation(str(index), truth) for index, truth in enumerate(truths)]
    return Split("train", annotations, images.__getitem__, digest)


@pytest.fixture
def split() -> Split:
    return split_of([drawn([square(8, 8, 30, 16)]), drawn([square(40, 30, 40, 20)], (80, 64)), drawn([])])


def test_kept_maps_are_the_teachers_of_the_whole_image_to_half_a_step(lab, split) -> None:
    teacher = white_teacher(32)
    maps = kept_maps(teacher, split, ("binary", "probability"), lab)
    for index, size in enumerate([(32, 64), (64, 32), (32, 64)]):
        shown = cv2.resize(split.image(index), size[::-1], interpolation=cv2.INTER_LINEAR)
        teacher.network.train()
        outputs = teacher.network(torch.from_numpy(network_input([shown], teacher.algorithm.input)))
        found = maps(index)
        assert list(found) == ["binary", "probability"]
        for name, array in found.items():
            assert (array.shape, array.dtype) == ((1, *size), np.uint8)
            np.testing.assert_allclose(array[0] / 255, outputs[name][0, 0].detach(), atol=0.5 / 255 + 1e-6)


def test_maps_for_bf16_training_are_those_of_bf16_and_kept_apart(lab, split) -> None:
    torch.manual_seed(0)
    teacher = white_teacher(32)
    teacher.network.load_state_dict({name: value + 0.1 * torch.rand_like(value) for name, value in teacher.network.state_dict().items()})
    single, half = (kept_maps(teacher, split, ("probability",), lab, precision) for precision in ("no", "bf16"))
    assert single.folder != half.folder
    shown = cv2.resize(split.image(0), (64, 32), interpolation=cv2.INTER_LINEAR)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        wanted = teacher.network(torch.from_numpy(network_input([shown], teacher.algorithm.input)))["probability"].float()
    np.testing.assert_allclose(half(0)["probability"][0] / 255, wanted[0, 0], atol=0.5 / 255 + 1e-6)


def test_maps_are_computed_once_and_only_those_that_are_missing_or_damaged(lab, split, caplog) -> None:
    teacher = white_teacher()
    maps = kept_maps(teacher, split, ("probability",), lab)
    before = [maps(index)["probability"] for index in range(3)]

    def asked() -> int:
        """Of images, without the one by which the number of channels is found."""
        teacher.network.asked = 0
        again = kept_maps(teacher, split, ("probability",), lab)
        for index, expected in enumerate(before):
            np.testing.assert_array_equal(again(index)["probability"], expected)
        return teacher.network.asked - 1

    assert asked() == 0
    maps.file(1).unlink()
    assert asked() == 1
    maps.file(0).write_bytes(maps.file(0).read_bytes()[:-1])
    maps.file(2).write_bytes(b"")
    assert asked() == 2
    flipped = bytearray(maps.file(1).read_bytes())
    flipped[len(flipped) // 2] ^= 1
    maps.file(1).write_bytes(flipped)
    assert asked() == 1
    assert f"{maps.file(1)} are damaged" in caplog.text
    assert asked() == 0
    assert sorted(path.name for path in maps.folder.iterdir()) == ["0.npy", "1.npy", "2.npy"]


def test_a_run_that_is_cut_off_goes_on_where_it_was(lab, split) -> None:
    teacher, images = white_teacher(), split.image

    def cut_off(index: int) -> np.ndarray:
        if index == 2:
            raise KeyboardInterrupt
        return images(index)

    with pytest.raises(KeyboardInterrupt):
        kept_maps(teacher, dataclasses.replace(split, image=cut_off), ("probability",), lab)
    teacher.network.asked = 0
    kept_maps(teacher, split, ("probability",), lab)
    assert teacher.network.asked - 1 == 1


def test_the_key_moves_with_weights_size_images_and_maps_and_with_nothing_else(split) -> None:
    teacher, other = white_teacher(), white_teacher()
    with torch.no_grad():
        other.network.weight.add_(0.1)
    names = ("probability",)
    keys = {
        key(teacher, split, names),
        key(other, split, names),
        key(white_teacher(32), split, names),
        key(teacher, dataclasses.replace(split, digest="b"), names),
        key(teacher, split, ("binary",)),
    }
    assert len(keys) == 5
    assert key(white_teacher(), split, names) in keys
    settings = dataclasses.replace(teacher, evaluate=teacher.evaluate.with_settings({"box_threshold": 0.9}))
    assert key(settings, split, names) in keys


def smooth(seed: int, height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height // 16, width // 16, 3), np.float32)
    return (cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("config", [{}, {"scales": (0.3, 4.0), "cover": 0.5, "rotate": 180}, {"scales": (0.3,), "cover": 0.1}])
@pytest.mark.parametrize("resolution", [1.0, 0.5, 1.13])
def test_maps_go_through_the_view_of_their_image(config, resolution: float) -> None:
    """A grey image is its own map, at any resolution."""
    image = np.repeat(smooth(0, 240, 400)[..., :1], 3, 2)
    size = round(400 * resolution), round(240 * resolution)
    maps = cv2.resize(image[..., 0], size, interpolation=cv2.INTER_AREA if resolution < 1 else cv2.INTER_LINEAR)[None]
    truth = Words([square(30, 40, 60, 20), square(200, 100, 90, 30)], np.zeros(2, bool), ["a", "b"])
    still = Augment(**config, brightness=0, saturation=0)
    for seed in range(8):
        bare, carried = (
            augment(sample, still, 96, np.random.default_rng(seed))
            for sample in (Sample("a", image, truth), Sample("a", image, truth, {"itself": maps, "twice": np.concatenate([maps, maps])}))
        )
        np.testing.assert_array_equal(bare.image, carried.image)
        assert bare.maps == {}
        assert carried.maps["twice"].shape == (2, 96, 96)
        np.testing.assert_array_equal(carried.maps["twice"], np.repeat(carried.maps["itself"], 2, 0))
        difference = np.abs(carried.maps["itself"][0].astype(int) - carried.image[..., 0])
        inside = cv2.erode((carried.image[..., 0] > 0).astype(np.uint8), np.ones((9, 9)), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
        assert difference[inside].max(initial=0) <= 12
        assert difference.mean() < 3


def test_what_is_found_corrects_the_words() -> None:
    word, unsure, missed = square(10, 10, 40, 10), square(10, 40, 40, 10), square(10, 70, 40, 10)
    truth = Words([word, unsure, missed], np.array([False, True, True]), ["word", "###", "###"])
    near, new = square(12, 41, 40, 10), square(70, 70, 20, 10)
    half_on = square(40, 10, 18, 10)  # more than half of it on a word
    given = corrected(truth, Detections([near, new, half_on], np.ones(3, np.float32)))
    np.testing.assert_array_equal(given.polygons, [word, unsure, missed, new])
    assert given.ignore.tolist() == [False, False, True, True]
    assert given.texts == ["word", "", "", ""]
    assert truth.ignore.tolist() == [False, True, True]


def test_images_without_words_take_those_that_are_found() -> None:
    found = Detections([square(0, 0, 9, 9)], np.ones(1, np.float32))
    given = corrected(Words([], np.zeros(0, bool)), found)
    np.testing.assert_array_equal(given.polygons, found.polygons)
    assert given.ignore.tolist() == [False]
    nothing = corrected(Words([square(0, 0, 9, 9)], np.zeros(1, bool), ["a"]), Detections([], np.zeros(0, np.float32)))
    assert (len(nothing.polygons), nothing.texts) == (1, ["a"])


def test_a_split_is_corrected_by_what_the_teacher_reads_from_its_kept_maps(lab) -> None:
    seen, new, hidden = square(8, 8, 30, 16), square(50, 40, 30, 12), square(50, 8, 30, 12)
    truth = Words([seen, hidden], np.array([True, True]), ["###", "###"])
    split = split_of([drawn([seen, new])], [truth])
    taught = taught_split(white_teacher(), split, ("binary",), lab, carry=True, correct=True)
    words = taught.annotations[0].truth
    assert words.ignore.tolist() == [False, True, True]
    np.testing.assert_allclose(np.sort(words.polygons[2], 0), np.sort(new, 0), atol=1.5)
    assert list(taught[0].maps) == ["binary"]
    assert split[0].maps == {}
    only_maps = taught_split(white_teacher(), split, ("binary",), lab, carry=True, correct=False)
    assert only_maps.annotations is split.annotations


def test_words_are_read_from_maps_as_they_are_outside_of_training(lab) -> None:
    """PSENet's are a quarter as large there, and its limits on areas are of such."""

    class Shrinking(White):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            found = super().forward(images)
            return found if self.training else {name: avg_pool2d(maps, 4) for name, maps in found.items()}

    teacher = white_teacher().with_network(Shrinking())
    split = split_of([drawn([square(8, 8, 30, 16)])])
    small, large = (kept_maps(teacher, split, ("probability",), lab, exported=exported)(0)["probability"] for exported in (True, False))
    assert (small.shape[1] * 4, small.shape[2] * 4) == large.shape[1:]
    assert key(teacher, split, ("probability",)) != key(teacher, split, ("probability",), exported=True)
    asked = []

    def read(outputs, _size):
        asked.append(outputs)
        return Detections([], np.zeros(0, np.float32))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Predictor, "reader", lambda *_: read)
        taught_split(teacher, split, (), lab, carry=False, correct=True)
    assert asked[0]["probability"].shape[1:] == small.shape


def test_several_maps_of_the_teacher_become_one_of_the_students() -> None:
    stage = Distill(
        **SCHEDULE,
        teacher="t",
        cache=True,
        response={"maps": {"probability": 2.0}, "teacher_maps": {"probability": ["region", "affinity"]}, "dilate": 2},
    )
    algorithm = white_teacher().algorithm
    generator = torch.Generator().manual_seed(0)
    maps = {name: torch.randint(0, 256, (2, 1, 8, 8), generator=generator, dtype=torch.uint8) for name in ("region", "affinity")}
    assert stage.copied_maps(algorithm) == ("region", "affinity")
    given = recalled(stage, algorithm, {f"carried.{name}": tensor for name, tensor in maps.items()}).maps
    both = np.maximum(*(maps[name].numpy() for name in maps))
    for image, expected in zip(given["probability"].numpy(), both, strict=True):
        np.testing.assert_allclose(image[0] * 255, cv2.dilate(expected[0], np.ones((2, 2), np.uint8)), atol=1e-3)
    plain = stage.model_copy(update={"response": stage.response.model_copy(update={"teacher_maps": {}, "dilate": 1})})
    assert as_student(plain, algorithm, {"probability": both}) == {"probability": both}


def trained(lab: Lab, student: Model, **settings) -> dict[str, float]:
    """The losses of one epoch of the stage."""
    folder = lab.folder.parent / f"stage{len(list(lab.folder.parent.iterdir()))}"
    Distill(**{**SCHEDULE, "teacher": "t", **settings}).apply(
        student.with_network(copy.deepcopy(student.network)), dataclasses.replace(lab, folder=folder)
    )
    (entry,) = read_lines(folder / "metrics.jsonl")
    return entry


@pytest.fixture(scope="module")
def student() -> Model:
    torch.manual_seed(0)
    return fresh(
        {"name": "db", "backbone": "mobilenet_v3_small", "neck": {"name": "fpn", "channels": 16}}, EvaluateDetection(short_side=64)
    )


def test_a_kept_teacher_teaches_what_one_that_looks_on_does(lab, student) -> None:
    """Where views are the images themselves, but for the rounding of what is kept."""
    live, kept = (trained(lab, student, cache=cache) for cache in (False, True))
    assert kept["response"] == pytest.approx(live["response"], rel=2e-3)
    assert kept["loss"] == pytest.approx(live["loss"], rel=5e-3)


@pytest.mark.parametrize("settings", [{"cache": True}, {"weight": 0, "labels": "teacher"}])
def test_a_student_in_fp32_can_have_maps_that_were_computed_in_bf16(lab, student, settings, monkeypatch) -> None:
    computed = []
    monkeypatch.setattr(
        "compress.training.teacher_maps.compute", lambda *given, **more: computed.append(given[-1]) or compute(*given, **more)
    )
    for precision in (None, "fp32", "bf16"):
        trained(lab, student, **settings, maps_precision=precision)
    assert computed == ["no", "no", "bf16"]


def test_another_algorithm_teaches_through_maps_of_another_resolution(lab, student) -> None:
    torch.manual_seed(1)
    craft = fresh({"name": "craft", "width": 0.125}, EvaluateDetection(short_side=64))
    lab = dataclasses.replace(lab, open_teacher=lambda _: craft)
    response = {"maps": {"probability": 1.0}, "teacher_maps": {"probability": ["region", "affinity"]}}
    live, kept = (trained(lab, student, response=response, cache=cache) for cache in (False, True))
    assert 0 < live["response"] <= 1
    assert kept["response"] == pytest.approx(live["response"], rel=0.02)


def test_a_teacher_may_teach_by_labels_alone(lab, student) -> None:
    taught, given = (trained(lab, student, weight=0, labels=labels) for labels in ("teacher", "given"))
    assert "response" not in taught
    assert taught["loss"] != given["loss"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"teacher": ["a", "b"], "cache": True}, "take one teacher, not 2"),
        ({"teacher": ["a", "b"], "labels": "teacher"}, "take one teacher, not 2"),
        ({"teacher": None, "mutual": {}, "cache": True}, "take one teacher, not 0"),
        ({"cache": True, "feature": {}}, "leave `feature` out"),
        ({"maps_precision": "bf16"}, "`maps_precision` is that of kept maps"),
        ({"cache": True, "weight": 0, "labels": "teacher"}, "give `weight` a value above 0"),
        ({"response": {"teacher_maps": {"probabilty": "region"}}}, "response.teacher_maps: there is no map 'probabilty'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(student, settings, words) -> None:
    with pytest.raises(CompressError, match=words):
        Distill(**{**SCHEDULE, "teacher": "t", **settings}).check(student)


def test_what_cannot_be_kept_or_read_back_is_refused() -> None:
    teacher = white_teacher()
    check_can_be_kept(teacher, ("probability", "binary"))
    check_can_correct(teacher)
    with pytest.raises(CompressError, match="'threshold' is no map"):
        check_can_be_kept(teacher, ("threshold",))
    angle = fresh({"name": "angle"}, EvaluateClassification())
    with pytest.raises(CompressError, match="task 'classification'"):
        check_can_correct(angle)
    pan = {"name": "pan", "backbone": {"name": "resnet18", "width": 0.125}, "neck": {"name": "fpem_ffm", "channels": 16, "repeats": 1}}
    with pytest.raises(CompressError, match="'similarity', which is no map"):
        check_can_correct(fresh(pan, EvaluateDetection(short_side=64)))
