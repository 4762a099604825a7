from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.checkpoint import fresh
from compress.errors import CompressError
from compress.tasks.detection import EvaluateDetection as Evaluate
from compress.training.features import Adapters, Levels, check_maps, matching_layers, outputs_of, paired_levels


def model(backbone: str = "mobilenet_v3_small", channels: int = 16):
    return fresh({"name": "db", "backbone": backbone, "neck": {"name": "fpn", "channels": channels}}, Evaluate(short_side=64))


@pytest.fixture(scope="module")
def student():
    return model()


@pytest.fixture(scope="module")
def teacher():
    return model("resnet18", 32)


def test_patterns_name_the_outermost_layers_in_the_networks_order(student):
    assert matching_layers(student.network, ("neck.smooths.*",)) == tuple(f"neck.smooths.{i}" for i in range(4))
    assert matching_layers(student.network, ("threshold.up2", "probability.conv")) == ("probability.conv", "threshold.up2")


def test_a_container_that_is_never_called_is_no_layer(student):
    with pytest.raises(CompressError, match=r"'neck\.smooths' matches no layer; did you mean 'neck\.smooths\.\d'"):
        matching_layers(student.network, ("neck.smooths",))


def test_outputs_are_collected_inside_the_context_and_nothing_is_left_behind(student):
    network, seen_before = student.network.eval(), []
    handle = network.backbone.register_forward_hook(lambda *_: seen_before.append(1))
    images = torch.rand(1, 3, 64, 64)
    with outputs_of(network, ("neck", "probability.up2")) as seen:
        maps = network(images)
    assert torch.equal(seen["probability.up2"].sigmoid(), maps["probability"])
    assert torch.equal(seen["neck"], network.neck(network.backbone(images)))
    kept = seen["neck"]
    network(images + 1)
    assert seen["neck"] is kept
    handle.remove()
    assert not any(module._forward_hooks for module in network.modules())


def test_hooks_are_removed_when_the_network_fails(student):
    with pytest.raises(RuntimeError), outputs_of(student.network, ("neck",)):
        student.network(torch.rand(1, 4, 64, 64))
    assert not any(module._forward_hooks for module in student.network.modules())


def test_levels_are_paired_with_their_widths(student, teacher):
    levels = paired_levels(student, teacher, ("neck.smooths.*",), ("neck.smooths.*",))
    assert levels == Levels(tuple(f"neck.smooths.{i}" for i in range(4)), tuple(f"neck.smooths.{i}" for i in range(4)), (4,) * 4, (8,) * 4)


@pytest.mark.parametrize(
    ("layers", "teacher_layers", "told"),
    [
        (("nek.*",), ("neck.smooths.*",), "'nek.*' matches no layer"),
        (("neck.smooths.*",), ("neck.smoths.*",), "in the teacher 'neck.smoths.*' matches no layer"),
        (("neck.smooths.*",), ("neck.smooths.0",), "4 layers of the student"),
        (("neck.smooths.0",), ("neck.smooths.1",), "is 32 x 32 where 'neck.smooths.1' of the teacher is 16 x 16"),
        (("backbone",), ("backbone",), r"'backbone' of the student gives no \(B, C, H, W\) features"),
    ],
)
def test_layers_that_cannot_be_compared_are_refused(student, teacher, layers, teacher_layers, told):
    with pytest.raises(CompressError, match=told):
        paired_levels(student, teacher, layers, teacher_layers)


def test_a_teacher_without_a_map_is_refused(student, teacher):
    check_maps(student, teacher, {"probability": ("probability",), "binary": ("binary", "probability")})
    with pytest.raises(CompressError, match="the teacher gives no map 'binry'; did you mean 'binary'"):
        check_maps(student, teacher, {"binary": ("binary", "binry")})


def test_maps_may_have_another_resolution_but_not_other_channels(student):
    small = fresh({"name": "craft", "width": 0.125}, student.evaluate)
    check_maps(student, small, {"probability": ("region", "affinity")})
    config = {"name": "psenet", "backbone": "mobilenet_v3_small", "neck": {"name": "fpn", "channels": 4}, "kernels": 3}
    with pytest.raises(CompressError, match=r"'kernels' is of size \(3, .* the student's 'probability' \(1, "):
        check_maps(student, fresh(config, student.evaluate), {"probability": ("kernels",)})


def test_adapters_stand_only_where_widths_differ_and_are_of_each_student():
    adapters = Adapters(Levels(("a", "b"), ("a", "b"), (3, 5), (7, 5)), 2)
    convolutions = [module for module in adapters.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels, conv.kernel_size) for conv in convolutions] == [(3, 7, (1, 1))] * 2
    features = [[torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)] for _ in range(2)]
    adapted = adapters(features)
    for index, levels in enumerate(adapted):
        assert torch.equal(levels[1], features[index][1])
        expected = torch.einsum("oc,bchw->bohw", convolutions[index].weight[:, :, 0, 0], features[index][0])
        assert torch.allclose(levels[0], expected, atol=1e-6)
