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
from compress.training.distillation import decoupled_divergence, time_divergence
from compress.training.features import compared_sizes
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


def guided(width: float = 0.25):
    torch.manual_seed(int(8 * width))
    backbone = {"name": "mobilenet_v3_small", "width": width}
    config = {"name": "crnn", "backbone": backbone, "sequence": "none", "alphabet": "digits", "guide": GUIDE}
    return fresh(config, EvaluateRecognition(height=32))


def test_steps_may_differ_over_time_alone():
    assert compared_sizes((1, 80, 97), True) == compared_sizes((1, 40, 97), True)
    assert compared_sizes((1, 80, 97), True) != compared_sizes((1, 80, 96), True)
    assert compared_sizes((1, 80, 97), False) != compared_sizes((1, 40, 97), False)
    assert compared_sizes((1, 4, 8, 8), False) == compared_sizes((1, 4, 16, 16), False)
