from __future__ import annotations

import math
from typing import get_args

import cv2
import numpy as np
import pytest
import torch

from compress.models.contract import Divergence
from compress.training.distillation import (
    DIVERGENCES,
    channel_wise,
    class_divergence,
    decoupled_divergence,
    dilated,
    feature_loss,
    mean_outputs,
    response_loss,
    soft_dice,
)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def plain_dice(prediction: np.ndarray, target: np.ndarray) -> float:
    overlap = squares = 0.0
    for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        overlap += p * t
        squares += p * p + t * t
    return 1 - 2 * overlap / (squares + 1e-6)


def plain_channel_wise(student: np.ndarray, teacher: np.ndarray, tau: float) -> float:
    """Equations 3 and 4, one position after the other."""
    total = 0.0
    for one, other in zip(student, teacher, strict=True):
        for ours, theirs in zip(one, other, strict=True):
            sums = [sum(math.exp(value / tau) for value in channel.ravel().tolist()) for channel in (ours, theirs)]
            for s, t in zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True):
                p, q = math.exp(t / tau) / sums[1], math.exp(s / tau) / sums[0]
                total += p * math.log(p / q)
    return tau**2 / student.shape[1] * total / len(student)


def plain_kl(student: np.ndarray, teacher: np.ndarray) -> float:
    """Of (N, C) logits: the sum over classes of q log(q / p), mean over the rows, p of the student and q of the teacher."""
    total = 0.0
    for ours, theirs in zip(student.astype(float), teacher.astype(float), strict=True):
        p, q = (np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum() for logits in (ours, theirs))
        total += float((q * np.log(q / p)).sum())
    return total / len(student)


def test_the_response_is_the_weighted_sum_of_the_dice_of_every_named_map():
    student = {name: noise(i, 2, 1, 5, 7) for i, name in enumerate("abc")}
    teacher = {name: noise(10 + i, 2, 1, 5, 7) for i, name in enumerate("abc")}
    expected = 0.5 * plain_dice(student["a"].numpy(), teacher["a"].numpy()) + 2 * plain_dice(student["c"].numpy(), teacher["c"].numpy())
    copies = dict.fromkeys("abc", "dice")
    assert float(response_loss(student, teacher, {"a": 0.5, "c": 2.0}, copies)) == pytest.approx(expected, rel=1e-5)


def test_every_output_is_compared_by_the_divergence_that_its_algorithm_names():
    student = {"map": noise(0, 2, 1, 5, 7), "logits": 8 * noise(1, 3, 6)}
    teacher = {"map": noise(2, 2, 1, 5, 7), "logits": 8 * noise(3, 3, 6)}
    expected = 0.5 * plain_dice(student["map"].numpy(), teacher["map"].numpy())
    expected += 2 * plain_kl(student["logits"].numpy(), teacher["logits"].numpy())
    found = response_loss(student, teacher, {"map": 0.5, "logits": 2.0}, {"map": "dice", "logits": "kl", "other": "dice"})
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert set(DIVERGENCES) == set(get_args(Divergence))


@pytest.mark.parametrize("shape", [(4, 6), (2, 5, 6), (2, 3, 4, 6)])
def test_class_divergence_is_torchs_own_over_every_row_of_classes(shape):
    student, teacher = 8 * noise(0, *shape), 8 * noise(1, *shape)
    rows = [logits.reshape(-1, shape[-1]) for logits in (student, teacher)]
    expected = torch.nn.KLDivLoss(reduction="batchmean")(rows[0].log_softmax(1), rows[1].softmax(1))
    assert float(class_divergence(student, teacher)) == pytest.approx(float(expected), rel=1e-5)
    assert float(class_divergence(student, teacher)) == pytest.approx(plain_kl(*(part.numpy() for part in rows)), rel=1e-5)
    moved = teacher + noise(2, *shape[:-1], 1)  # what is added to all logits of a row changes no probability
    assert float(class_divergence(student, moved)) == pytest.approx(float(expected), rel=1e-4)


def test_the_gradient_of_class_divergence_is_the_difference_of_the_probabilities():
    student, teacher = (4 * noise(0, 5, 3)).requires_grad_(), 4 * noise(9, 5, 3)
    class_divergence(student, teacher).backward()
    expected = (student.detach().softmax(1) - teacher.softmax(1)) / len(student)
    torch.testing.assert_close(student.grad, expected)


@pytest.mark.parametrize("tau", [0.7, 4.0])
def test_channel_wise_distillation_is_equations_3_and_4_written_out(tau):
    student, teacher = 5 * noise(0, 2, 3, 4, 5), 5 * noise(1, 2, 3, 4, 5)
    assert float(channel_wise(student, teacher, tau)) == pytest.approx(plain_channel_wise(student.numpy(), teacher.numpy(), tau), rel=1e-4)


def test_channel_wise_distillation_is_the_same_in_either_memory_layout():
    student, teacher = noise(0, 2, 3, 4, 5), noise(1, 2, 3, 4, 5)
    last = channel_wise(student.to(memory_format=torch.channels_last), teacher, 2.0)
    assert float(last) == pytest.approx(float(channel_wise(student, teacher, 2.0)), rel=1e-5)


def test_the_feature_loss_is_the_mean_over_levels():
    student, teacher = [noise(0, 1, 2, 4, 4), noise(1, 1, 3, 2, 2)], [noise(2, 1, 2, 4, 4), noise(3, 1, 3, 2, 2)]
    expected = sum(plain_channel_wise(s.numpy(), t.numpy(), 1.0) for s, t in zip(student, teacher, strict=True)) / 2
    assert float(feature_loss(student, teacher, 1.0)) == pytest.approx(expected, rel=1e-4)


def test_losses_are_zero_where_student_equals_teacher_and_positive_elsewhere():
    one, other = noise(0, 2, 3, 8, 8), noise(1, 2, 3, 8, 8)
    for loss in (soft_dice, class_divergence, lambda s, t: channel_wise(10 * s, 10 * t, 1.0)):
        assert float(loss(one, one)) == pytest.approx(0, abs=1e-6)
        assert float(loss(one, other)) > 0.01


def test_features_that_differ_by_a_constant_a_channel_are_equal_to_channel_wise_distillation():
    features = noise(0, 2, 3, 8, 8)
    assert float(channel_wise(features + torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1), features, 1.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
def test_dilation_is_that_of_opencv(side):
    maps = noise(side, 2, 1, 9, 13)
    expected = [cv2.dilate(image[0].numpy(), np.ones((side, side), np.uint8)) for image in maps]
    assert np.array_equal(dilated(maps, side)[:, 0].numpy(), np.stack(expected))


def test_the_mean_of_equal_teachers_is_the_one_bit_for_bit():
    maps = {"a": noise(0, 2, 1, 8, 8), "b": noise(1, 2, 1, 8, 8), "unused": noise(2, 1)}
    for several in ([maps], [maps, maps]):
        mean = mean_outputs(several, ("a", "b"))
        assert mean.keys() == {"a", "b"}
        assert all(torch.equal(mean[name], maps[name]) for name in mean)


def test_the_mean_of_different_teachers_is_taken_pixel_by_pixel():
    maps = [{"a": noise(seed, 1, 1, 2, 3)} for seed in range(3)]
    plain = [sum(float(one["a"].view(-1)[i]) for one in maps) / 3 for i in range(6)]
    assert mean_outputs(maps, ("a",))["a"].flatten().tolist() == pytest.approx(plain)


def shares(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def divergence(theirs: np.ndarray, ours: np.ndarray) -> float:
    return float((theirs * np.log(theirs / ours)).sum())


def test_decoupled_divergence_is_that_of_the_target_and_twice_that_of_the_rest():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(0, 2, (2, 2, 3, 5))
    expected = []
    for ours, theirs in zip(shares(student).reshape(-1, 5), shares(teacher).reshape(-1, 5), strict=True):
        target = theirs.argmax()
        binary = [np.array([one[target], 1 - one[target]]) for one in (theirs, ours)]
        rest = [np.delete(one, target) / np.delete(one, target).sum() for one in (theirs, ours)]
        expected.append(divergence(*binary) + 2 * divergence(*rest))
    found = DIVERGENCES["dkd"](torch.from_numpy(student), torch.from_numpy(teacher))
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(DIVERGENCES["dkd"](torch.from_numpy(student), torch.from_numpy(student))) == pytest.approx(0, abs=1e-9)


def test_decoupled_divergence_is_finite_where_the_teacher_is_certain():
    sure, other = torch.tensor([[[300.0, 0, 0]]]), torch.tensor([[[0.0, 200, 0]]], requires_grad=True)
    loss = DIVERGENCES["dkd"](other, sure)
    loss.backward()
    assert loss.isfinite()
    assert other.grad.isfinite().all()


def test_means_over_time_do_not_mind_where_blanks_stand():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(0, 2, (2, 7, 5)), rng.normal(0, 2, (2, 4, 5))
    expected = [divergence(shares(b).mean(0), shares(a).mean(0)) for a, b in zip(student, teacher, strict=True)]
    given = torch.from_numpy(student), torch.from_numpy(teacher)
    assert float(DIVERGENCES["time_kl"](*given)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(DIVERGENCES["time_kl"](given[0], given[0].flip(1))) == pytest.approx(0, abs=1e-9)
    assert float(DIVERGENCES["kl"](given[0], given[0].flip(1))) > 0.1


@pytest.mark.parametrize("divergence", [class_divergence, decoupled_divergence])
def test_steps_behind_the_end_of_a_text_weigh_nothing(divergence):
    """An attention decoder of more steps than the text has gives zeros there, and its teacher does, too."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 6, 41, generator=generator) for _ in range(2))
    alone = divergence(student, teacher)
    for more in (1, 20):
        longer = [torch.cat([logits, torch.zeros(4, more, 41)], 1) for logits in (student, teacher)]
        torch.testing.assert_close(divergence(*longer), alone)
    assert divergence(torch.zeros(2, 3, 5), torch.zeros(2, 3, 5)) == 0
