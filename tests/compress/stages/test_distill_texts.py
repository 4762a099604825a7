"""Distilling recognisers: alphabets must agree, divergences are chosen by name, steps may differ where means over time are compared."""

from __future__ import annotations

import pytest
import torch

from compress.checkpoint import fresh
from compress.errors import CompressError
from compress.models.registry import build
from compress.stages.distill import Distill
from compress.tasks.recognition import EvaluateRecognition
from compress.training.features import compared_sizes
from compress.training.lesson_settings import Response


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


def test_steps_may_differ_over_time_alone():
    assert compared_sizes((1, 80, 97), True) == compared_sizes((1, 40, 97), True)
    assert compared_sizes((1, 80, 97), True) != compared_sizes((1, 80, 96), True)
    assert compared_sizes((1, 80, 97), False) != compared_sizes((1, 40, 97), False)
    assert compared_sizes((1, 4, 8, 8), False) == compared_sizes((1, 4, 16, 16), False)
