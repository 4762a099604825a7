"""Distilling recognisers: alphabets must agree, divergences are chosen by name, steps may differ where means over time are compared."""

from __future__ import annotations

import pytest
import torch

from compress.checkpoint import fresh
from compress.errors import CompressError
from compress.models.registry import build
from compress.stages.distill import Distill
from compress.tasks.detection import EvaluateDetection
from compress.tasks.recognition import EvaluateRecognition
from compress.training.distillation import class_divergence, decoupled_divergence, time_divergence
from compress.training.features import Adapters, compared_sizes, paired_levels
from compress.training.lesson_settings import Response
from compress.training.lessons import lessons


def model(alphabet: str | dict, width: float = 0.25):
    torch.manual_seed(0)
    config = {"name": "crnn", "backbone": {"name": "mobilenet_v3_small", "width": width}, "sequence": "none", "alphabet": alphabet}
    return fresh(config, EvaluateRecognition(height=32))


def stage(**response) -> Distill:
    return Distill(name="distilled", teacher="teacher", epochs=1, response=Response(**response))


def test_a_teacher_with_another_alphabet_is_refused_and_a_wider_one_is_not():
    student = model("digits")
    stage().check_others(student, {"teacher": model("digits", 0.5)})
    upside_down = {"characters": "9876543210"}
    with pytest.raises(CompressError, match="the teacher has another alphabet than the student"):
        stage().check_others(student, {"teacher": model(upside_down)})


def test_the_divergence_of_logits_is_chosen_and_that_of_maps_is_dice():
    assert stage(divergence="time_kl").divergences(build("crnn")) == {"logits": "time_kl"}
    assert stage().divergences(build("crnn")) == {"logits": "kl"}
    assert stage(divergence="dkd").divergences(build("db")) == {"probability": "dice", "binary": "dice"}
    with pytest.raises(ValueError, match="divergence"):
        Response(divergence="kld")


GUIDE = {"name": "nrtr", "dims": 16, "heads": 2, "hidden": 16, "layers": 1, "longest": 5}


def test_each_output_has_a_divergence_of_its_own():
    student, teacher = guided(), guided(0.5)
    both = {"guide": "dkd", "logits": "time_kl"}
    assert stage(divergence=both).divergences(student.algorithm) == both
    assert stage(divergence={"logits": "time_kl"}).divergences(student.algorithm) == {"guide": "kl", "logits": "time_kl"}
    stage(divergence=both).check(student)
    stage(divergence=both).check_others(student, {"teacher": teacher})
    with pytest.raises(CompressError, match=r"response\.divergence: there is no map 'guides' to copy; did you mean 'guide'"):
        stage(divergence={"guides": "dkd"}).check(student)
    with pytest.raises(CompressError, match="the teacher gives no map 'guide'"):
        stage().check_others(student, {"teacher": model("digits")})
    stage(maps={"logits": 1}).check_others(student, {"teacher": model("digits")})
    detector = fresh({"name": "db", "backbone": {"name": "resnet18", "width": 0.125}}, EvaluateDetection(short_side=64))
    with pytest.raises(CompressError, match=r"response\.divergence: 'binary' is a map, which is compared by dice alone"):
        stage(divergence={"binary": "dkd"}).check(detector)


def test_a_student_copies_its_teachers_guide_and_logits_each_in_its_way():
    student, teacher = guided(), guided(0.5)
    torch.manual_seed(1)
    images = torch.randn(2, 3, 32, 64)
    targets = {
        "text": torch.tensor([[1, 2] + 14 * [0], [3] + 15 * [0]]),
        "length": torch.tensor([2, 1]),
        "characters": torch.tensor([[1, 2, 12, 0, 0, 0], [3, 12, 0, 0, 0, 0]]),
    }
    told = stage(divergence={"guide": "dkd", "logits": "time_kl"}, maps={"guide": 0.5, "logits": 2})
    objective = lessons(told, [student], [teacher], None)
    student.network.eval().training = True
    with torch.no_grad():
        _, parts = objective([student.network], images, targets)
        ours, theirs = student.network(images, targets), teacher.network(images, targets)
    expected = 0.5 * decoupled_divergence(ours["guide"], theirs["guide"]) + 2 * time_divergence(ours["logits"], theirs["logits"])
    torch.testing.assert_close(parts["response"], expected)
    assert not ours["guide"][1, 2:].any(), "behind the text there is nothing to copy"


def test_a_teacher_with_a_guide_of_more_steps_teaches_its_logits():
    student, teacher = guided(), guided(0.5, guide={**GUIDE, "longest": 9})
    images = torch.randn(2, 3, 32, 64)
    targets = {
        "text": torch.tensor([[1, 2] + 14 * [0], [3] + 15 * [0]]),
        "length": torch.tensor([2, 1]),
        "characters": torch.tensor([[1, 2, 12, 0, 0, 0], [3, 12, 0, 0, 0, 0]]),
    }
    objective = lessons(stage(maps={"logits": 1}), [student], [teacher], None)
    student.network.eval().training = True
    with torch.no_grad():
        _, parts = objective([student.network], images, targets)
        ours, theirs = student.network(images, targets), teacher.network(images)
    torch.testing.assert_close(parts["response"], class_divergence(ours["logits"], theirs["logits"]))


def test_two_students_learn_from_each_others_logits_guides_and_features():
    """U-DML of PP-OCRv3: symmetric, each from the other as it is."""
    pair = [guided(), guided(0.25, seed=7)]
    torch.manual_seed(1)
    images = torch.randn(2, 3, 32, 64)
    targets = {
        "text": torch.tensor([[1, 2] + 14 * [0], [3] + 15 * [0]]),
        "length": torch.tensor([2, 1]),
        "characters": torch.tensor([[1, 2, 12, 0, 0, 0], [3, 12, 0, 0, 0, 0]]),
    }
    mutual = {"weight": 0.5, "maps": {"logits": 1, "guide": 0.5}, "feature": 2.0}
    told = Distill(name="udml", epochs=1, mutual=mutual)
    told.check(pair[0])
    objective = lessons(told, pair, [], None)
    networks = [one.network for one in pair]
    for network in networks:
        network.eval().training = True
    total, parts = objective(networks, images, targets)
    total.backward()
    assert all(any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.backbone.parameters()) for network in networks)
    with torch.no_grad():
        maps = [network(images, targets) for network in networks]
        features = [network.backbone(images) for network in networks]
        expected = 0.0
        for mine, peers, prefix in ((0, 1, ""), (1, 0, "peer_")):
            task, _ = pair[mine].algorithm.loss(maps[mine], targets)
            learned = class_divergence(maps[mine]["logits"], maps[peers]["logits"])
            learned += 0.5 * class_divergence(maps[mine]["guide"], maps[peers]["guide"])
            apart = (features[mine] - features[peers]).square().mean()
            torch.testing.assert_close(parts[f"{prefix}mutual"], learned)
            torch.testing.assert_close(parts[f"{prefix}mutual_feature"], apart)
            expected += task + 0.5 * (learned + 2 * apart)
    torch.testing.assert_close(total.detach(), expected)


def test_two_students_learn_from_a_teacher_and_from_each_other():
    """CML, of recognisers: labels, teacher and the other student, each with its own share."""
    pair, teacher = [guided(), guided(0.25, seed=7)], guided(0.5, seed=3)
    torch.manual_seed(1)
    images = torch.randn(2, 3, 32, 64)
    targets = {
        "text": torch.tensor([[1, 2] + 14 * [0], [3] + 15 * [0]]),
        "length": torch.tensor([2, 1]),
        "characters": torch.tensor([[1, 2, 12, 0, 0, 0], [3, 12, 0, 0, 0, 0]]),
    }
    response = {"divergence": {"guide": "dkd", "logits": "time_kl"}}
    told = Distill(name="cml", teacher="teacher", epochs=1, weight=0.4, response=response, mutual={"weight": 0.7})
    told.check(pair[0])
    told.check_others(pair[0], {"teacher": teacher})
    objective = lessons(told, pair, [teacher], None)
    networks = [one.network for one in pair]
    for network in networks:
        network.eval().training = True
    total, parts = objective(networks, images, targets)
    with torch.no_grad():
        taught = teacher.network(images, targets)
        maps = [network(images, targets) for network in networks]
        expected = []
        for mine, peers, prefix in ((0, 1, ""), (1, 0, "peer_")):
            task, _ = pair[mine].algorithm.loss(maps[mine], targets)
            terms = [
                time_divergence(maps[mine]["logits"], other["logits"]) + decoupled_divergence(maps[mine]["guide"], other["guide"])
                for other in (taught, maps[peers])
            ]
            torch.testing.assert_close(parts[f"{prefix}response"], terms[0])
            torch.testing.assert_close(parts[f"{prefix}mutual"], terms[1])
            expected.append(0.6 * task + 0.4 * terms[0] + 0.7 * terms[1])
    torch.testing.assert_close(total.detach(), sum(expected))
    total.backward()
    assert all(any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.backbone.parameters()) for network in networks)
    assert all(parameter.grad is None for parameter in teacher.network.parameters())


def test_features_may_be_held_against_a_teachers_by_their_squared_difference():
    student, teacher = guided(), guided(0.25, seed=7)
    told = Distill(name="distilled", teacher="teacher", epochs=1, weight=0, feature={"distance": "l2"})
    levels = paired_levels(student, teacher, ("backbone",), ("backbone",))
    objective = lessons(told, [student], [teacher], levels)
    student.network.eval().training = True
    images, targets = (
        torch.randn(2, 3, 32, 64),
        {"text": torch.zeros(2, 16, dtype=torch.int64), "length": torch.zeros(2, dtype=torch.int64)},
    )
    targets["characters"] = torch.zeros(2, 6, dtype=torch.int64)
    with torch.no_grad():
        _, parts = objective([student.network, Adapters(levels, 1)], images, targets)
        apart = (student.network.backbone(images) - teacher.network.backbone(images)).square().mean()
    torch.testing.assert_close(parts["feature"], apart)


def guided(width: float = 0.25, seed: int = 0, guide: dict = GUIDE):
    torch.manual_seed(seed)
    backbone = {"name": "mobilenet_v3_small", "width": width}
    config = {"name": "crnn", "backbone": backbone, "sequence": "none", "alphabet": "digits", "guide": guide}
    return fresh(config, EvaluateRecognition(height=32))


def test_steps_may_differ_over_time_alone():
    assert compared_sizes((1, 80, 97), True) == compared_sizes((1, 40, 97), True)
    assert compared_sizes((1, 80, 97), True) != compared_sizes((1, 80, 96), True)
    assert compared_sizes((1, 80, 97), False) != compared_sizes((1, 40, 97), False)
    assert compared_sizes((1, 4, 8, 8), False) == compared_sizes((1, 4, 16, 16), False)


def test_logits_have_no_pixels_to_dilate():
    with pytest.raises(CompressError, match=r"response\.dilate: 'logits' is no map with pixels to dilate"):
        stage(dilate=3).check(model("digits"))
    stage(dilate=1).check(model("digits"))
