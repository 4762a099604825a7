"""The thin plate spline that straightens lines: against one solved plainly, and what it does to an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.checkpoint import fresh
from compress.models.transforms import on_edges, pixel_centres, spline_basis, spline_solution, tps
from compress.pruning.classes import keep_classes
from compress.pruning.groups import find_groups, remove_channels
from compress.tasks.recognition import EvaluateRecognition
from compress.training.weights import soften


def plain_spline(sources, targets, points):
    """Where the thin plate spline that takes `sources` to `targets` takes `points`, with one system solved for each call."""

    def bending(one, other):
        radius = np.hypot(*(one - other))
        return radius**2 * np.log(radius) if radius else 0.0

    count = len(sources)
    system, wanted = np.zeros((count + 3, count + 3)), np.zeros((count + 3, 2))
    for row, one in enumerate(sources):
        system[row] = [*(bending(one, other) for other in sources), 1, *one]
        system[count:, row] = [1, *one]
        wanted[row] = targets[row]
    coefficients = np.linalg.solve(system, wanted)
    return np.array([[*(bending(point, other) for other in sources), 1, *point] @ coefficients for point in points])


@pytest.mark.parametrize("fiducials", [6, 20])
def test_points_are_moved_as_by_a_spline_solved_plainly(fiducials):
    rng = np.random.default_rng(0)
    edges, offsets = on_edges(fiducials), rng.normal(0, 0.2, (fiducials, 2))
    points = torch.from_numpy(rng.uniform(-1, 1, (30, 2)))
    moved = points + spline_basis(points, edges) @ spline_solution(edges) @ torch.from_numpy(offsets)
    np.testing.assert_allclose(moved, plain_spline(edges.numpy(), edges.numpy() + offsets, points.numpy()), atol=1e-8)


def test_offsets_that_shift_all_points_alike_shift_the_image():
    edges = on_edges(20)
    everywhere = (
        spline_basis(pixel_centres(4, 9, edges), edges) @ spline_solution(edges) @ torch.tensor([[0.3, -0.1]]).double().expand(20, 2)
    )
    torch.testing.assert_close(everywhere, torch.tensor([[0.3, -0.1]]).double().expand(36, 2))


def test_a_fresh_one_leaves_every_line_as_it_is():
    torch.manual_seed(0)
    straighten = tps().eval()
    for size in ((32, 100), (48, 321), (48, 8)):
        lines = torch.randn(2, 3, *size)
        torch.testing.assert_close(straighten(lines), lines, atol=1e-4, rtol=0)


def test_it_finds_the_line_that_lies_where_its_offsets_say():
    straighten = tps().eval()
    wide = torch.rand(1, 3, 48, 240)
    with torch.no_grad():
        straighten.offsets.bias.copy_(torch.tensor([0.5, 0.0]).repeat(20))  # half of half the width
    torch.testing.assert_close(straighten(wide)[..., :180], wide[..., 60:], atol=1e-3, rtol=0)
    torch.testing.assert_close(straighten(wide)[..., 190:], wide[..., -1:].expand(-1, -1, -1, 50), atol=1e-3, rtol=0)


def test_bfloat16_outside_does_not_make_its_points_coarse():
    torch.manual_seed(0)
    straighten = tps().eval()
    line = torch.randn(1, 3, 48, 320)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(straighten(line), line, atol=1e-4, rtol=0)


def test_it_learns_from_what_becomes_of_the_image():
    torch.manual_seed(0)
    straighten = tps()
    line, wanted = torch.rand(2, 3, 32, 64), torch.rand(2, 3, 32, 64)
    (straighten(line) - wanted).square().mean().backward()
    gradient = straighten.offsets.weight.grad
    assert gradient.isfinite().all()
    assert bool(gradient.abs().sum(1).gt(0).all())  # every point, in both directions


def test_its_layers_are_pruned_with_the_rest_but_not_its_points():
    torch.manual_seed(0)
    config = {"name": "crnn", "backbone": {"name": "mobilenet_v3_small", "width": 0.25}, "sequence": "none", "transform": "tps"}
    model = fresh({**config, "alphabet": "digits"}, EvaluateRecognition())
    torch.nn.init.normal_(model.network.transform.offsets.weight, std=0.01)
    groups = {group.name: group for group in find_groups(model)}
    assert [name for name in groups if name.startswith("transform.")] == [
        *(f"transform.locate.{place}.0" for place in (0, 2, 4, 6)),
        "transform.hidden",
    ]
    assert all(name.startswith("transform.") for group in groups.values() for name in group.members if group.name.startswith("transform."))
    network = model.network
    with torch.no_grad():  # channels that go are silent before
        for layer, norm in (("transform.locate.6.0", "transform.locate.6.1"), ("transform.hidden", "transform.hidden")):
            network.get_submodule(norm).weight[:5] = 0
            network.get_submodule(norm).bias[:5] = 0
            assert groups[layer].members == (layer,)
    line = torch.randn(2, 3, 48, 96)
    before = network.eval()(line)["probability"]
    remove_channels(model, list(groups.values()), {"transform.locate.6.0": range(5), "transform.hidden": range(5)})
    assert (network.transform.hidden.in_features, network.transform.hidden.out_features) == (123, 59)
    torch.testing.assert_close(network(line)["probability"], before, atol=1e-5, rtol=1e-4)


def test_its_points_are_neither_classes_nor_logits():
    """Twenty points have as many numbers as 36 characters have classes in an attention decoder."""
    torch.manual_seed(0)
    model = fresh({"name": "crnn", "transform": "tps", "alphabet": "alphanumeric"}, EvaluateRecognition())
    offsets = model.network.transform.offsets
    torch.nn.init.ones_(offsets.bias)
    soften(model, 8)
    keep_classes(model, model.algorithm.alphabet, range(1, 11))
    assert model.network.head.out_features == 11
    assert torch.equal(offsets.bias, torch.ones(40))
