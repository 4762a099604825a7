"""Sizes, names and modes of the networks."""

from __future__ import annotations

import pytest
import torch

from compress.models.backbones.lcnet import lcnet
from compress.models.backbones.lcnet_v3 import lcnet_v3
from compress.models.backbones.mobilenet_v3 import mobilenet_v3_large, mobilenet_v3_small, mobilenet_v3_small_torchvision
from compress.models.backbones.mobilenet_v3_ppocr import mobilenet_v3_large_ppocr
from compress.models.backbones.pphgnet import pphgnet_small
from compress.models.backbones.resnet import resnet18, resnet18_vd, resnet34, resnet50, resnet50_vd
from compress.models.backbones.vgg import vgg16_bn
from compress.models.db import db
from compress.models.necks.asf import fpn_asf
from compress.models.necks.fpem_ffm import fpem_ffm
from compress.models.necks.fpn import db_fpn, fpn, lkpan, rse_fpn
from compress.models.registry import NECKS

BACKBONES = [
    mobilenet_v3_large, mobilenet_v3_small, mobilenet_v3_small_torchvision, mobilenet_v3_large_ppocr, lcnet, lcnet_v3,
    resnet18, resnet34, resnet50, resnet18_vd, resnet50_vd, pphgnet_small, vgg16_bn,
]  # fmt: skip

# Parameters of torchvision's classifiers (https://pytorch.org/vision/stable/models.html) less what comes after the features.
TORCHVISION_PARAMETERS = {
    resnet18: 11_689_512 - (512 * 1000 + 1000),
    resnet34: 21_797_672 - (512 * 1000 + 1000),
    resnet50: 25_557_032 - (2048 * 1000 + 1000),
    vgg16_bn: 138_365_992 - (512 * 7 * 7 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000),
    mobilenet_v3_large: 5_483_032 - (960 * 1280 + 1280 + 1280 * 1000 + 1000) - (160 * 960 + 2 * 960),
    mobilenet_v3_small_torchvision: 2_542_856 - (576 * 1024 + 1024 + 1024 * 1000 + 1000) - (96 * 576 + 2 * 576),
}

TORCHVISION_SHAPES = {
    resnet18: {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_mean": (64,),
        "layer1.1.conv2.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.running_var": (128,),
        "layer4.1.bn2.bias": (512,),
    },
    resnet34: {
        "layer1.2.conv2.weight": (64, 64, 3, 3),
        "layer3.5.bn2.bias": (256,),
    },
    resnet50: {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer3.5.conv2.weight": (256, 256, 3, 3),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "layer4.2.bn3.num_batches_tracked": (),
    },
    vgg16_bn: {
        "features.0.weight": (64, 3, 3, 3),
        "features.1.running_var": (64,),
        "features.10.bias": (128,),
        "features.24.weight": (512, 256, 3, 3),
        "features.41.weight": (512,),
    },
    mobilenet_v3_large: {
        "features.1.block.0.0.weight": (16, 1, 3, 3),
        "features.4.block.2.fc1.weight": (24, 72, 1, 1),
        "features.11.block.2.fc1.weight": (120, 480, 1, 1),
        "features.15.block.3.0.weight": (160, 960, 1, 1),
    },
    mobilenet_v3_small_torchvision: {
        "features.0.0.weight": (16, 3, 3, 3),
        "features.0.1.running_mean": (16,),
        "features.1.block.0.0.weight": (16, 1, 3, 3),
        "features.1.block.1.fc1.weight": (8, 16, 1, 1),
        "features.1.block.1.fc2.bias": (16,),
        "features.1.block.2.0.weight": (16, 16, 1, 1),
        "features.2.block.0.0.weight": (72, 16, 1, 1),
        "features.4.block.1.0.weight": (96, 1, 5, 5),
        "features.4.block.2.fc1.weight": (24, 96, 1, 1),
        "features.11.block.3.1.weight": (96,),
    },
}


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_default_network_has_the_published_size() -> None:
    assert parameters(db().network()) == 579_550


@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_have_the_promised_strides_and_widths(backbone) -> None:
    network = backbone().eval()
    with torch.inference_mode():
        features = network(torch.randn(1, 3, 64, 96))
    assert [tuple(feature.shape) for feature in features] == [
        (1, width, 64 // stride, 96 // stride) for width, stride in zip(network.channels, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("backbone", [*TORCHVISION_SHAPES, mobilenet_v3_small, resnet50_vd, pphgnet_small])
def test_width_scales_every_layer(backbone) -> None:
    whole, half = backbone(), backbone(width=0.5)
    assert 0.2 < parameters(half) / parameters(whole) < 0.35
    with torch.inference_mode():
        assert [feature.shape[1] for feature in half.eval()(torch.randn(1, 3, 32, 32))] == list(half.channels)
    assert all(narrow == pytest.approx(wide / 2, abs=4) for narrow, wide in zip(half.channels, whole.channels, strict=True))


@pytest.mark.parametrize("backbone", TORCHVISION_SHAPES)
def test_parameters_are_torchvisions(backbone) -> None:
    network = backbone()
    state = network.state_dict()
    expected = TORCHVISION_SHAPES[backbone]
    assert {name: tuple(state[name].shape) for name in expected} == expected
    assert parameters(network) == TORCHVISION_PARAMETERS[backbone]


@pytest.mark.parametrize(("width", "millions"), [(0.25, 1.5), (0.5, 1.9), (1.0, 3.0)])
def test_lcnet_has_the_papers_size(width: float, millions: float) -> None:
    """As published (Cui et al. 2021), which counts a 1x1 convolution to 1280 channels and the classifier of 1000 classes too."""
    network = lcnet(width)
    assert round((parameters(network) + network.channels[-1] * 1280 + 1280 * 1000 + 1000) / 1e6, 1) == millions


@pytest.mark.parametrize("factory", [fpn, db_fpn, rse_fpn, lkpan, fpn_asf])
def test_the_neck_gives_one_map_of_its_width_at_stride_4(factory) -> None:
    neck = factory((16, 24, 48, 96), channels=64).eval()
    features = [torch.randn(2, width, 32 // 2**i, 48 // 2**i) for i, width in enumerate((16, 24, 48, 96))]
    assert neck(features).shape == (2, 64, 32, 48)
    assert neck.channels == 64
    assert fpn((16, 24, 48, 96), channels=64, smooth_channels=24)(features).shape == (2, 96, 32, 48)


def test_a_pooled_shortcut_sees_every_pixel() -> None:
    """The shortcut of ResNet drops three pixels of four where the resolution is halved."""
    for backbone, seen in ((resnet18, 1), (resnet18_vd, 4)):
        shortcut = backbone(width=0.125).layer2[0].downsample.eval()
        x = torch.zeros(1, 8, 2, 2, requires_grad=True)
        shortcut(x).sum().backward()
        assert int((x.grad[0, 0] != 0).sum()) == seen


def test_intracl_looks_along_rows_and_columns_and_adds_to_what_it_is_given() -> None:
    torch.manual_seed(0)
    plain, neck = lkpan((8, 8, 8, 8), channels=8).eval(), lkpan((8, 8, 8, 8), channels=8, intracl=True).eval()
    levels = {f"smooths.{level}.0.weight": plain.smooths[level].weight for level in range(4)}
    shared = {name: value for name, value in plain.state_dict().items() if not name.startswith("smooths")}
    assert set(neck.load_state_dict({**shared, **levels}, strict=False).unexpected_keys) == set()
    features = [torch.randn(1, 8, 16 // 2**i, 16 // 2**i) for i in range(4)]
    context = neck(features) - plain(features)
    assert float(context.detach().min()) >= 0
    assert float(context.detach().max()) > 0
    for module in neck.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.zeros_(module.weight)
    torch.testing.assert_close(neck(features), plain(features))


def test_the_local_head_averages_two_looks() -> None:
    torch.manual_seed(0)
    network = db(backbone={"name": "resnet18_vd", "width": 0.125}, neck={"name": "lkpan", "channels": 16}, local=True).network().eval()
    network.training = True
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        maps = network(images)
        first, second = network.probability(network.neck(network.backbone(images)))
    torch.testing.assert_close(maps["probability"], (first.sigmoid() + second.sigmoid()) / 2)
    torch.testing.assert_close(maps["logits"], second)
    torch.testing.assert_close(maps["binary"], torch.sigmoid(50 * (first.sigmoid() - maps["threshold"])))


def test_fpem_ffm_gives_four_levels_of_its_width_at_stride_4_and_each_reaches_all() -> None:
    torch.manual_seed(0)
    neck = fpem_ffm((16, 24, 48, 96), channels=8, repeats=1).eval()
    features = [torch.randn(1, width, 32 // 2**i, 48 // 2**i) for i, width in enumerate((16, 24, 48, 96))]
    before = neck(features)
    assert before.shape == (1, 32, 32, 48)
    assert neck.channels == 32
    for level in range(4):
        changed = [feature + (i == level) for i, feature in enumerate(features)]
        moved = (neck(changed) - before).abs().amax((0, 2, 3)).view(4, 8)
        assert (moved.amax(1) > 0).all()


@pytest.mark.parametrize("neck", NECKS)
def test_a_student_can_compare_the_levels_of_any_neck(neck: str) -> None:
    algorithm = db(backbone={"name": "resnet18", "width": 0.125}, neck={"name": neck, "channels": 16})
    network = algorithm.network().eval()
    seen = {}
    for level, smooth in enumerate(network.neck.smooths):
        smooth.register_forward_hook(lambda _module, _inputs, output, level=level: seen.__setitem__(level, output.shape[2]))
    with torch.inference_mode():
        network(torch.randn(1, 3, 64, 64))
    assert algorithm.features == ("neck.smooths.*",)
    assert seen == {0: 16, 1: 8, 2: 4, 3: 2}


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "mobilenet_v3_small_torchvision", "resnet18"])
def test_maps_of_each_mode(backbone: str) -> None:
    torch.manual_seed(0)
    network = db(backbone=backbone, neck={"name": "fpn", "channels": 32}).network()
    images = torch.randn(2, 3, 64, 96)
    network.train()
    assert set(network(images)) == {"logits", "probability", "threshold", "binary"}
    network.eval()
    with torch.inference_mode():
        exported = network(images)
        network.training = True
        everything = network(images)
    assert set(exported) == {"probability"}
    assert set(everything) == {"logits", "probability", "threshold", "binary"}
    torch.testing.assert_close(everything["probability"], exported["probability"])
    for name, array in everything.items():
        assert array.shape == (2, 1, 64, 96)
        assert name == "logits" or 0 <= float(array.min()) <= float(array.max()) <= 1


def test_binary_is_equation_2() -> None:
    torch.manual_seed(0)
    network = db(steepness=20.0).network().eval()
    network.training = True
    with torch.inference_mode():
        maps = network(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(maps["binary"], 1 / (1 + torch.exp(-20 * (maps["probability"] - maps["threshold"]))))


def test_looking_at_all_maps_in_evaluation_leaves_batch_norms_alone() -> None:
    network = db().network().eval()
    network.training = True
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        network(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_what_must_stay_float_exists() -> None:
    from fnmatch import fnmatch

    for local, expected in (
        (False, ["probability.up2", "threshold.up2"]),
        (True, ["probability.up2", "probability.last", "threshold.up2"]),
    ):
        algorithm = db(local=local)
        names = [
            name for name, _ in algorithm.network().named_modules() if any(fnmatch(name, pattern) for pattern in algorithm.kept_layers)
        ]
        assert names == expected
