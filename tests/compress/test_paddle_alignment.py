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


def mobile_block(inputs, inner, outputs, kernel, stride, act):
    children = {
        "expand_conv": conv_norm(inputs, inner, 1),
        "bottleneck_conv": conv_norm(inner, inner, kernel, stride, inner),
        "linear_conv": conv_norm(inner, outputs, 1),
    }

    def forward(self, x):
        y = self.linear_conv(act(self.bottleneck_conv(act(self.expand_conv(x)))))
        return x + y if stride == 1 and inputs == outputs else y

    return named(forward, **children)


def mobilenet():
    """MobileNetV3-large at width 0.5, all widths rounded to multiples of 8, without squeeze-and-excite."""
    relu, swish = F.relu, F.hardswish
    last_of_stage = [(40, 240, 56, 3, 1, swish), (56, 336, 56, 3, 1, swish)]
    rows = [
        [(8, 8, 8, 3, 1, relu), (8, 32, 16, 3, 2, relu), (16, 40, 16, 3, 1, relu)],
        [(16, 40, 24, 5, 2, relu), (24, 64, 24, 5, 1, relu), (24, 64, 24, 5, 1, relu)],
        [(24, 120, 40, 3, 2, swish), (40, 104, 40, 3, 1, swish), *[(40, 96, 40, 3, 1, swish)] * 2, *last_of_stage],
        [(56, 336, 80, 5, 2, swish), *[(80, 480, 80, 5, 1, swish)] * 2],
    ]
    last = named(lambda self, x: F.hardswish(self.bn(self.conv(x))), conv=conv(80, 480, 1), bn=nn.BatchNorm2D(480))
    stages = [nn.Sequential(*(mobile_block(*row) for row in stage), *([last] if i == 3 else [])) for i, stage in enumerate(rows)]

    def forward(self, x):
        x, features = F.hardswish(self.conv(x)), []
        for stage in (self.stage0, self.stage1, self.stage2, self.stage3):
            x = stage(x)
            features.append(x)
        return features

    return named(forward, conv=conv_norm(3, 8, 3, 2), **{f"stage{i}": stage for i, stage in enumerate(stages)})


def vd_block(inputs, width, outputs, stride, first):
    """A bottleneck where `outputs` is wider than `width`, else two 3x3 convolutions."""
    wide = outputs > width
    children = {"conv0": relu_conv_norm(inputs, width, 1 if wide else 3, 1 if wide else stride)}
    children["conv1"] = relu_conv_norm(width, width, 3, stride if wide else 1, act="relu" if wide else None)
    children |= {"conv2": relu_conv_norm(width, outputs, 1, act=None)} if wide else {}
    children |= {"short": relu_conv_norm(inputs, outputs, 1, act=None)} if first else {}

    def forward(self, x):
        y = self.conv1(self.conv0(x))
        y = self.conv2(y) if wide else y
        if first:
            x = self.short(F.avg_pool2d(x, 2, 2) if stride == 2 else x)
        return F.relu(y + x)

    return named(forward, **children)


def resnet_vd(depths, expansion):
    children, inputs = {}, 64
    for number, widths in enumerate(((3, 32, 2), (32, 32, 1), (32, 64, 1)), 1):
        children[f"conv1_{number}"] = relu_conv_norm(widths[0], widths[1], 3, widths[2])
    for stage, (depth, width) in enumerate(zip(depths, (64, 128, 256, 512), strict=True)):
        for index in range(depth):
            stride = 2 if stage and not index else 1
            children[f"bb_{stage}_{index}"] = vd_block(inputs, width, expansion * width, stride, not index)
            inputs = expansion * width

    def forward(self, x):
        x, features = F.max_pool2d(self.conv1_3(self.conv1_2(self.conv1_1(x))), 3, 2, 1), []
        for stage, depth in enumerate(depths):
            for index in range(depth):
                x = getattr(self, f"bb_{stage}_{index}")(x)
            features.append(x)
        return features

    return named(forward, **children)


def active(inputs, outputs, kernel, stride=1):
    return named(lambda self, x: F.relu(self.bn(self.conv(x))), conv=conv(inputs, outputs, kernel, stride), bn=nn.BatchNorm2D(outputs))


def gate(channels):
    return named(lambda self, x: x * F.sigmoid(self.conv(F.adaptive_avg_pool2d(x, 1))), conv=conv(channels, channels, 1, bias=True))


def hg_block(inputs, inner, outputs, residual):
    def forward(self, x):
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        y = self.att(self.aggregation_conv(paddle.concat(outputs, axis=1)))
        return x + y if residual else y

    layers = [active(inner if i else inputs, inner, 3) for i in range(6)]
    return named(forward, layers=layers, aggregation_conv=active(inputs + 6 * inner, outputs, 1), att=gate(outputs))


def hg_stage(inputs, inner, outputs, blocks, halve):
    children = {"downsample": conv_norm(inputs, inputs, 3, 2, inputs)} if halve else {}
    children["blocks"] = nn.Sequential(*(hg_block(outputs if i else inputs, inner, outputs, i > 0) for i in range(blocks)))
    return named(lambda self, x: self.blocks(self.downsample(x) if halve else x), **children)


def pphgnet():
    stages = [(128, 128, 256, 1, False), (256, 160, 512, 1, True), (512, 192, 768, 2, True), (768, 224, 1024, 1, True)]

    def forward(self, x):
        x, features = F.max_pool2d(self.stem(x), 3, 2, 1), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    stem = nn.Sequential(active(3, 64, 3, 2), active(64, 64, 3), active(64, 128, 3))
    return named(forward, stem=stem, stages=[hg_stage(*stage) for stage in stages])


def up(x, times):
    return F.interpolate(x, scale_factor=times, mode="nearest")


def coarsest_first(layers, levels):
    """Each layer on its level; the order in which they run is that of the nodes of an exported graph."""
    pairs = list(zip(layers, levels, strict=True))
    return [layer(x) for layer, x in pairs[::-1]][::-1]


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
        levels = top_down(coarsest_first(self.ins_conv, features))
        return joined(coarsest_first(self.inp_conv, levels))

    return named(forward, ins_conv=[rse(width, 96, 1) for width in widths], inp_conv=[rse(96, 24, 3) for _ in widths])


def intracl(channels):
    inner = channels // 2

    def layer(height, width):
        return nn.Conv2D(inner, inner, (height, width), padding=(height // 2, width // 2))

    def forward(self, x):
        y = self.conv1x1_reduce_channel(x)
        for size in (7, 5, 3):
            square, column, row = (f"c_layer_{size}x{size}", f"v_layer_{size}x1", f"q_layer_1x{size}")
            y = getattr(self, square)(y) + getattr(self, column)(y) + getattr(self, row)(y)
        return x + F.relu(self.bn(self.conv1x1_return_channel(y)))

    children = {f"c_layer_{size}x{size}": layer(size, size) for size in (7, 5, 3)}
    children |= {f"v_layer_{size}x1": layer(size, 1) for size in (7, 5, 3)}
    children |= {f"q_layer_1x{size}": layer(1, size) for size in (7, 5, 3)}
    children["conv1x1_reduce_channel"] = nn.Conv2D(channels, inner, 1)
    children["conv1x1_return_channel"] = nn.Conv2D(inner, channels, 1)
    return named(forward, bn=nn.BatchNorm2D(channels), **children)


def db_fpn(widths):
    def forward(self, features):
        levels = top_down(coarsest_first(self.laterals, features))
        return joined(coarsest_first(self.smooths, levels))

    network = named(forward)
    network.laterals = [conv(width, 256, 1) for width in widths]
    network.smooths = [conv(256, 64, 3) for _ in widths]
    for level in range(4):
        network.add_sublayer(f"in{level + 2}_conv", network.laterals[level])
        network.add_sublayer(f"p{level + 2}_conv", network.smooths[level])
    return network


def lkpan(widths, context=False):
    def forward(self, features):
        levels = top_down(coarsest_first(self.ins_conv, features))
        levels = coarsest_first(self.inp_conv, levels)
        for finer, layer in enumerate(self.pan_head_conv):
            levels[finer + 1] = levels[finer + 1] + layer(levels[finer])
        levels = [layer(x) for layer, x in zip(self.pan_lat_conv, levels, strict=True)]
        for level in (3, 2, 1, 0) if context else ():
            levels[level] = getattr(self, f"incl{level + 1}")(levels[level])
        return joined(levels)

    return named(
        forward,
        **{f"incl{number}": intracl(64) for number in (range(1, 5) if context else ())},
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


def local_head(channels):
    """The mean of a map and of a second one, made of the first and of the features before its last layer."""
    inner = channels // 4

    def forward(self, x):
        branch = self.binarize
        features = branch.conv_bn2(branch.conv2(branch.conv_bn1(branch.conv1(x))))
        first = F.sigmoid(branch.conv3(features))
        second = F.sigmoid(self.cbn_layer(paddle.concat([first, up(features, 2)], axis=1)))
        return 0.5 * (first + second), self.thresh(x)

    last = named(lambda self, x: self.last_1(self.last_3(x)), last_3=active(inner + 1, inner, 3), last_1=nn.Conv2D(inner, 1, 1))
    return named(forward, binarize=head_branch(channels, 3), thresh=head_branch(channels, 3), cbn_layer=last)


def with_local_head(backbone, neck, channels):
    return named(lambda self, x: self.head(self.neck(self.backbone(x))), backbone=backbone, neck=neck, head=local_head(channels))


def detector(backbone, neck, channels, kernel=3):
    head = named(
        lambda self, x: (self.binarize(x), self.thresh(x)), binarize=head_branch(channels, kernel), thresh=head_branch(channels, kernel)
    )
    return named(lambda self, x: self.head(self.neck(self.backbone(x))), backbone=backbone, neck=neck, head=head)


DETECTORS = {
    "PP-OCRv3 mobile detector": lambda: detector(mobilenet(), rse_fpn((16, 24, 56, 480)), 96),
    "PP-OCRv4 mobile detector": lambda: detector(lcnet(), rse_fpn((12, 18, 42, 360)), 96),
    "PP-OCR v2.0 server detector": lambda: detector(resnet_vd((2, 2, 2, 2), 1), db_fpn((64, 128, 256, 512)), 256),
    "PP-OCRv3 teacher (ResNet50_vd, LK-PAN, 7x7 head)": lambda: detector(
        resnet_vd((3, 4, 6, 3), 4), lkpan((256, 512, 1024, 2048)), 256, kernel=7
    ),
    "PP-OCRv4 server detector": lambda: with_local_head(pphgnet(), lkpan((256, 512, 768, 1024), context=True), 256),
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
