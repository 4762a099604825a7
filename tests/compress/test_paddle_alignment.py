"""The same random weights through Paddle's layers and ours, for architectures of which there is no exported file. Needs `paddlepaddle`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.checkpoint import load, save
from compress.convert import convert
from compress.training.modes import show_all_maps

paddle = pytest.importorskip("paddle", reason="paddlepaddle is not installed")
nn, F = paddle.nn, paddle.nn.functional


def conv(inputs, outputs, kernel, stride=1, groups=1, bias=False):
    return nn.Conv2D(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias_attr=None if bias else False)


def named(forward, **children):
    """A Paddle layer of named children, run by `forward(layer, x)`."""

    class Composed(nn.Layer):
        def __init__(self):
            super().__init__()
            for name, child in children.items():
                self.add_sublayer(name, nn.LayerList(child) if isinstance(child, list) else child)

        def forward(self, x):
            return forward(self, x)

    return Composed()


def conv_norm(inputs, outputs, kernel, stride=1, groups=1):
    return named(lambda self, x: self.bn(self.conv(x)), conv=conv(inputs, outputs, kernel, stride, groups), bn=nn.BatchNorm2D(outputs))


class Affine(nn.Layer):
    def __init__(self):
        super().__init__()
        self.scale = self.create_parameter([1], default_initializer=nn.initializer.Uniform(0.7, 1.3))
        self.bias = self.create_parameter([1], default_initializer=nn.initializer.Uniform(-0.3, 0.3))

    def forward(self, x):
        return self.scale * x + self.bias


def squeeze(channels, slope):
    def forward(self, x):
        gate = self.conv2(F.relu(self.conv1(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(gate, slope=slope, offset=0.5)

    return named(forward, conv1=conv(channels, channels // 4, 1, bias=True), conv2=conv(channels // 4, channels, 1, bias=True))


def reparameterised(inputs, outputs, kernel, stride, groups):
    """The sum of four convolutions, a 1x1 and the identity, each with batch norm; scale and shift; activation unless it halves."""
    children = {"conv_kxk": [conv_norm(inputs, outputs, kernel, stride, groups) for _ in range(4)], "lab": Affine()}
    children["act"] = named(lambda self, x: self.lab(F.hardswish(x)), lab=Affine())
    if kernel > 1:
        children["conv_1x1"] = conv_norm(inputs, outputs, 1, stride, groups)
    if inputs == outputs and stride == 1:
        children["identity"] = nn.BatchNorm2D(inputs)

    def forward(self, x):
        total = sum(branch(x) for branch in self.conv_kxk)
        total = total + self.conv_1x1(x) if kernel > 1 else total
        total = total + self.identity(x) if inputs == outputs and stride == 1 else total
        return self.lab(total) if stride == 2 else self.act(self.lab(total))

    return named(forward, **children)


def lcnet_block(inputs, outputs, kernel, stride, squeezed):
    children = {"dw_conv": reparameterised(inputs, inputs, kernel, stride, inputs)}
    children |= {"se": squeeze(inputs, 1 / 6)} if squeezed else {}
    children["pw_conv"] = reparameterised(inputs, outputs, 1, 1, 1)
    return named(lambda self, x: self.pw_conv(self.se(self.dw_conv(x)) if squeezed else self.dw_conv(x)), **children)


def lcnet():
    """At width 0.75: 16 to 384 channels in multiples of 16."""
    five = [(192, 192, 5, 1, False)] * 4
    stages = {
        "blocks2": [(16, 32, 3, 1, False)],
        "blocks3": [(32, 48, 3, 2, False), (48, 48, 3, 1, False)],
        "blocks4": [(48, 96, 3, 2, False), (96, 96, 3, 1, False)],
        "blocks5": [(96, 192, 3, 2, False), *five],
        "blocks6": [(192, 384, 5, 2, True), (384, 384, 5, 1, True), (384, 384, 5, 1, False), (384, 384, 5, 1, False)],
    }
    outputs = [conv(*widths, 1, bias=True) for widths in ((48, 12), (96, 18), (192, 42), (384, 360))]

    def forward(self, x):
        x, features = self.blocks2(self.conv1(x)), []
        for stage, output in zip((self.blocks3, self.blocks4, self.blocks5, self.blocks6), self.layer_list, strict=True):
            x = stage(x)
            features.append(output(x))
        return features

    blocks = {name: nn.Sequential(*(lcnet_block(*row) for row in rows)) for name, rows in stages.items()}
    return named(forward, conv1=conv_norm(3, 16, 3, 2), layer_list=outputs, **blocks)


def relu_conv_norm(inputs, outputs, kernel, stride=1, act="relu"):
    children = {"_conv": conv(inputs, outputs, kernel, stride), "_batch_norm": nn.BatchNorm(outputs, act=act)}
    return named(lambda self, x: self._batch_norm(self._conv(x)), **children)


def bottleneck(inputs, width, stride, projected):
    children = {
        "conv0": relu_conv_norm(inputs, width, 1),
        "conv1": relu_conv_norm(width, width, 3, stride),
        "conv2": relu_conv_norm(width, 4 * width, 1, act=None),
    }
    children |= {"short": relu_conv_norm(inputs, 4 * width, 1, stride, act=None)} if projected else {}
    return named(lambda self, x: F.relu(self.conv2(self.conv1(self.conv0(x))) + (self.short(x) if projected else x)), **children)


def resnet50():
    children, inputs = {"conv": relu_conv_norm(3, 64, 7, 2)}, 64
    for stage, (depth, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        for index in range(depth):
            stride = 2 if stage and not index else 1
            children[f"res{stage + 2}{'abcdef'[index]}"] = bottleneck(inputs, width, stride, not index)
            inputs = 4 * width

    def forward(self, x):
        x, features = F.max_pool2d(self.conv(x), 3, 2, 1), []
        for stage, depth in enumerate((3, 4, 6, 3)):
            for index in range(depth):
                x = getattr(self, f"res{stage + 2}{'abcdef'[index]}")(x)
            features.append(x)
        return features

    return named(forward, **children)


def up(x, times):
    return F.interpolate(x, scale_factor=times, mode="nearest")


def top_down(levels):
    for finer in (2, 1, 0):
        levels[finer] = levels[finer] + up(levels[finer + 1], 2)
    return levels


def joined(levels):
    return paddle.concat([up(levels[3], 8), up(levels[2], 4), up(levels[1], 2), levels[0]], axis=1)


def rse(inputs, outputs, kernel):
    def forward(self, x):
        x = self.in_conv(x)
        return x + self.se_block(x)

    return named(forward, in_conv=conv(inputs, outputs, kernel), se_block=squeeze(outputs, 0.2))


def rse_fpn(widths):
    def forward(self, features):
        levels = top_down([layer(x) for layer, x in zip(self.ins_conv, features, strict=True)])
        return joined([layer(x) for layer, x in zip(self.inp_conv, levels, strict=True)])

    return named(forward, ins_conv=[rse(width, 96, 1) for width in widths], inp_conv=[rse(96, 24, 3) for _ in widths])


def lkpan(widths):
    def forward(self, features):
        levels = top_down([layer(x) for layer, x in zip(self.ins_conv, features, strict=True)])
        levels = [layer(x) for layer, x in zip(self.inp_conv, levels, strict=True)]
        for finer, layer in enumerate(self.pan_head_conv):
            levels[finer + 1] = levels[finer + 1] + layer(levels[finer])
        return joined([layer(x) for layer, x in zip(self.pan_lat_conv, levels, strict=True)])

    return named(
        forward,
        ins_conv=[conv(width, 256, 1) for width in widths],
        inp_conv=[conv(256, 64, 9) for _ in widths],
        pan_head_conv=[conv(64, 64, 3, 2) for _ in range(3)],
        pan_lat_conv=[conv(64, 64, 9) for _ in widths],
    )


def head_branch(channels, kernel):
    inner = channels // 4
    return named(
        lambda self, x: F.sigmoid(self.conv3(self.conv_bn2(self.conv2(self.conv_bn1(self.conv1(x)))))),
        conv1=conv(channels, inner, kernel),
        conv_bn1=nn.BatchNorm(inner, act="relu"),
        conv2=nn.Conv2DTranspose(inner, inner, 2, 2),
        conv_bn2=nn.BatchNorm(inner, act="relu"),
        conv3=nn.Conv2DTranspose(inner, 1, 2, 2),
    )


def detector(backbone, neck, channels, kernel=3):
    head = named(
        lambda self, x: (self.binarize(x), self.thresh(x)), binarize=head_branch(channels, kernel), thresh=head_branch(channels, kernel)
    )
    return named(lambda self, x: self.head(self.neck(self.backbone(x))), backbone=backbone, neck=neck, head=head)


DETECTORS = {
    "PP-OCRv4 mobile detector": lambda: detector(lcnet(), rse_fpn((12, 18, 42, 360)), 96),
    "LK-PAN teacher with ResNet-50": lambda: detector(resnet50(), lkpan((256, 512, 1024, 2048)), 256),
    "LK-PAN teacher with ResNet-50 and a 7x7 head": lambda: detector(resnet50(), lkpan((256, 512, 1024, 2048)), 256, kernel=7),
}


def with_statistics_of(network, images):
    """Batch norms that have seen data, so that random weights give maps that vary."""
    for layer in network.sublayers():
        if isinstance(layer, nn.BatchNorm2D | nn.BatchNorm):
            layer._momentum = 0.0
            layer.weight.set_value(paddle.uniform(layer.weight.shape, min=0.5, max=1.5))
            layer.bias.set_value(paddle.uniform(layer.bias.shape, min=-0.5, max=0.5))
    network.train()
    network(images)
    return network.eval()


@pytest.mark.parametrize("title", DETECTORS)
def test_random_weights_give_the_same_maps(tmp_path, title) -> None:
    paddle.seed(0)
    images = np.random.default_rng(0).standard_normal((2, 3, 96, 128), np.float32)
    network = with_statistics_of(DETECTORS[title](), paddle.to_tensor(images))
    paddle.save(network.state_dict(), str(tmp_path / "model.pdparams"))
    with paddle.no_grad():
        probability, threshold = (values.numpy() for values in network(paddle.to_tensor(images)))

    converted = convert(tmp_path / "model.pdparams", [])
    assert converted.family.title == title
    assert not converted.fresh
    # Paddle gives every layer an activation, which those that halve the resolution never run.
    assert all(name.endswith(("dw_conv.act.lab.scale", "dw_conv.act.lab.bias")) for name in converted.unused)
    save(converted.model, tmp_path)
    ours = load(tmp_path).network
    show_all_maps(ours)
    with torch.inference_mode():
        maps = ours(torch.from_numpy(images[:, ::-1].copy()))
    assert probability.std() > 0.05
    parameters = sum(parameter.numel() for parameter in ours.parameters())
    difference = max(np.abs(probability - maps["probability"].numpy()).max(), np.abs(threshold - maps["threshold"].numpy()).max())
    print(f"{title}: {parameters:,} parameters, largest difference {difference:.2e}")
    assert difference < 1e-4
