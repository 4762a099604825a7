from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compress.tasks import TASKS
from compress.training.averaging import start_average, update_average
from compress.training.distillation import soft_dice
from compress.training.loop import make_optimizer, pull_scales_to_zero
from compress.training.schedules import lr_factor
from compress.training.settings import Schedule


def test_lr_factors_match_their_formulas():
    assert lr_factor(step=50, steps=100, warmup_steps=0, decay="poly") == pytest.approx(0.5**0.9)
    assert lr_factor(step=25, steps=100, warmup_steps=0, decay="cosine") == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert lr_factor(step=99, steps=100, warmup_steps=0, decay="constant") == 1


def test_lr_falls_by_gamma_at_the_end_of_each_milestone():
    milestones = [30, 60, 80, 85]
    factors = [lr_factor(step=step, steps=90, warmup_steps=2, decay="step", milestones=milestones, gamma=0.3) for step in range(90)]
    assert factors[0] == 0.5
    for step in range(2, 90):
        done = len([milestone for milestone in milestones if milestone <= step])
        assert factors[step] == pytest.approx(0.3**done)


def test_steps_are_written_where_they_count_and_refused_elsewhere():
    steps = Schedule(epochs=900, optimizer="rmsprop", lr=1e-3, decay="step", milestones=(300, 600, 800, 850), gamma=0.3)
    assert Schedule(**steps.model_dump(mode="json")) == steps
    for wrong in ({"decay": "step"}, {"milestones": (3,)}, {"gamma": 0.5}, {"decay": "step", "milestones": (0,)}):
        with pytest.raises(ValidationError, match="milestones"):
            Schedule(epochs=1, **wrong)


def test_a_crop_is_one_number_for_a_square_or_a_pair_and_else_the_tasks_own():
    for written, size in ((96, (96, 96)), ([48, 192], (48, 192)), ((64, 64), (64, 64))):
        schedule = Schedule(epochs=1, crop=written)
        assert schedule.size(TASKS["classification"]) == size
        assert Schedule(**schedule.model_dump(mode="json")) == schedule
    for task in TASKS.values():
        assert Schedule(epochs=1).size(task) == task.crop
    for wrong in (True, 0, [48], [48, 192, 3], [48, 8], "96", 96.0):
        with pytest.raises(ValidationError, match="crop"):
            Schedule(epochs=1, crop=wrong)


def test_rmsprop_is_its_recursion_written_out():
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = make_optimizer(network, Schedule(epochs=1, optimizer="rmsprop", lr=0.01, weight_decay=0.1))
    expected, squares = network.weight.detach().clone(), torch.zeros_like(network.weight)
    for _ in range(4):
        gradient = torch.randn(2, 3)
        network.weight.grad, network.bias.grad = gradient, torch.zeros(2)
        optimizer.step()
        decayed = gradient + 0.1 * expected
        squares = 0.99 * squares + 0.01 * decayed**2
        expected = expected - 0.01 * decayed / (squares.sqrt() + 1e-8)
    torch.testing.assert_close(network.weight.detach(), expected)


@pytest.mark.parametrize("decay", ["poly", "cosine", "constant"])
def test_lr_rises_to_its_peak_and_never_rises_after(decay):
    factors = [lr_factor(step=step, steps=40, warmup_steps=8, decay=decay) for step in range(40)]
    assert factors[:8] == pytest.approx([(i + 1) / 8 for i in range(8)])
    assert max(factors) == 1
    assert all(later <= earlier for earlier, later in pairwise(factors[7:]))
    assert all(0 < factor <= 1 for factor in factors)


def test_the_average_is_the_recursion_written_out():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = start_average(network)
    expected = {name: tensor.double().clone() for name, tensor in network.state_dict().items()}
    for step in range(1, 6):
        for parameter in network.parameters():
            parameter.data.add_(torch.randn_like(parameter))
        network[1].num_batches_tracked += 1
        update_average(average, network, decay=0.9, step=step)
        share = 1 - min(0.9, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            expected[name] += share * (tensor.double() - expected[name]) if tensor.is_floating_point() else 1
    for name, tensor in average.items():
        assert torch.allclose(tensor.double(), expected[name], atol=1e-6)


def test_the_average_is_not_the_network_itself():
    network = nn.Linear(2, 2)
    average = start_average(network)
    network.weight.data.add_(1)
    assert not torch.equal(average["weight"], network.weight)


def test_soft_dice_is_zero_for_equal_soft_maps_only():
    prediction = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(soft_dice(prediction, prediction)) == pytest.approx(0, abs=1e-5)
    assert float(soft_dice(prediction, 1 - prediction)) > 0.1
    assert float(soft_dice(torch.zeros(4), torch.ones(4))) == pytest.approx(1)


def test_sparsity_is_the_subgradient_of_the_l1_norm_of_all_scales():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
    network[1].weight.data = torch.tensor([0.5, -2.0, 0.0])
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    pull_scales_to_zero(network, 0.1)
    assert torch.allclose(network[1].weight.grad, torch.tensor([1.1, 0.9, 1.0]))
    assert torch.equal(network[0].weight.grad, torch.ones(3, 1, 1, 1))
