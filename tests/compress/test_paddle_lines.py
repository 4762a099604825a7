"""Recognisers of which there is no exported file: the same random weights through Paddle's layers and ours. Needs `paddlepaddle`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.models.registry import build

paddle = pytest.importorskip("paddle", reason="paddlepaddle is not installed")

from tests.compress.test_paddle_alignment import (  # noqa: E402  # Paddle comes first
    active,
    conv_norm,
    hg_block,
    named,
    relu_conv_norm,
    squeeze,
    with_statistics_of,
)

pytestmark = pytest.mark.slow
nn, F = paddle.nn, paddle.nn.functional
CLASSES = 11
FIDUCIALS = 20


def mobile_block(inputs, inner, outputs, kernel, stride, squeezed, act):
    children = {"expand": conv_norm(inputs, inner, 1), "depthwise": conv_norm(inner, inner, kernel, stride, inner)}
    children |= {"se": squeeze(inner, 0.2)} if squeezed else {}
    children["project"] = conv_norm(inner, outputs, 1)

    def forward(self, x):
        y = act(self.depthwise(act(self.expand(x))))
        y = self.project(self.se(y) if squeezed else y)
        return x + y if stride == 1 and inputs == outputs else y

    return named(forward, **children)


def mobilenet_v3_large():
    """At half the width; the height is halved by the stem, in three blocks and by the pooling, the width by the first and the last."""
    relu, swish, down = F.relu, F.hardswish, (2, 1)
    rows = [
        (8, 8, 8, 3, 1, False, relu), (8, 32, 16, 3, down, False, relu), (16, 40, 16, 3, 1, False, relu),
        (16, 40, 24, 5, down, True, relu), (24, 64, 24, 5, 1, True, relu), (24, 64, 24, 5, 1, True, relu),
        (24, 120, 40, 3, 1, False, swish), (40, 104, 40, 3, 1, False, swish),
        (40, 96, 40, 3, 1, False, swish), (40, 96, 40, 3, 1, False, swish),
        (40, 240, 56, 3, 1, True, swish), (56, 336, 56, 3, 1, True, swish),
        (56, 336, 80, 5, down, True, swish), (80, 480, 80, 5, 1, True, swish), (80, 480, 80, 5, 1, True, swish),
    ]  # fmt: skip
    blocks = nn.Sequential(*(mobile_block(*row) for row in rows))

    def forward(self, x):
        x = F.hardswish(self.last(self.blocks(F.hardswish(self.stem(x)))))
        return F.max_pool2d(x, 2, 2)

    return named(forward, stem=conv_norm(3, 8, 3, 2), blocks=blocks, last=conv_norm(80, 480, 1))


def separable(inputs, outputs, kernel, stride, squeezed):
    children = {"depthwise": conv_norm(inputs, inputs, kernel, stride, inputs)}
    children |= {"se": squeeze(inputs, 1 / 6)} if squeezed else {}
    children["pointwise"] = conv_norm(inputs, outputs, 1)

    def forward(self, x):
        x = F.hardswish(self.depthwise(x))
        return F.hardswish(self.pointwise(self.se(x) if squeezed else x))

    return named(forward, **children)


def mobilenet_v1_enhance_v2():
    rows = [
        (16, 32, 3, 1, False), (32, 64, 3, 1, False), (64, 64, 3, 1, False), (64, 128, 3, (2, 1), False), (128, 128, 3, 1, False),
        (128, 256, 3, (2, 1), False), *[(256, 256, 5, 1, False)] * 5, (256, 512, 5, (2, 1), True), (512, 512, 5, 1, True),
    ]  # fmt: skip

    def forward(self, x):
        return F.max_pool2d(self.blocks(F.hardswish(self.stem(x))), 2, 2)

    return named(forward, stem=conv_norm(3, 16, 3, 2), blocks=nn.Sequential(*(separable(*row) for row in rows)))


def residual(inputs, outputs, stride, first, projected):
    children = {"conv0": relu_conv_norm(inputs, outputs, 3, stride), "conv1": relu_conv_norm(outputs, outputs, 3, act=None)}
    children |= {"short": relu_conv_norm(inputs, outputs, 1, act=None)} if projected else {}

    def forward(self, x):
        y = self.conv1(self.conv0(x))
        if projected:
            x = self.short(x if first else F.avg_pool2d(x, stride, stride, 0, ceil_mode=True))
        return F.relu(x + y)

    return named(forward, **children)


def resnet34_vd():
    stem = [relu_conv_norm(3, 32, 3), relu_conv_norm(32, 32, 3), relu_conv_norm(32, 64, 3)]
    blocks, inputs = [], 64
    for stage, (depth, outputs) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        for index in range(depth):
            blocks.append(residual(inputs, outputs, (2, 1) if stage and not index else 1, stage == 0, index == 0))
            inputs = outputs

    def forward(self, x):
        return F.max_pool2d(self.blocks(F.max_pool2d(self.stem(x), 3, 2, 1)), 2, 2)

    return named(forward, stem=nn.Sequential(*stem), blocks=nn.Sequential(*blocks))


def pphgnet():
    stages = [(128, 128, 256, 1, (2, 1)), (256, 160, 512, 1, (1, 2)), (512, 192, 768, 2, (2, 1)), (768, 224, 1024, 1, (2, 1))]
    layers = [active(3, 64, 3, 2), active(64, 64, 3), active(64, 128, 3)]
    for inputs, inner, outputs, blocks, stride in stages:
        layers.append(conv_norm(inputs, inputs, 3, stride, inputs))
        layers += [hg_block(outputs if place else inputs, inner, outputs, place > 0) for place in range(blocks)]
    return named(lambda self, x: F.avg_pool2d(self.layers(x), (3, 2)), layers=nn.Sequential(*layers))


def spline(channels, hidden):
    """RARE's transformer as PaddleOCR computes it, but that the image's corners are those of its pixels and its edges go on outside."""
    half = FIDUCIALS // 2
    fiducials = np.concatenate([np.stack([np.linspace(-1, 1, half), np.full(half, y)], 1) for y in (-1.0, 1.0)])

    def bending(points):
        radius = np.linalg.norm(points[:, None] - fiducials[None], axis=2)
        return radius**2 * np.log(np.where(radius == 0, 1, radius))

    delta = np.zeros((FIDUCIALS + 3, FIDUCIALS + 3))
    delta[:FIDUCIALS] = np.concatenate([np.ones((FIDUCIALS, 1)), fiducials, bending(fiducials)], 1)
    delta[FIDUCIALS:, 3:] = np.concatenate([np.ones((FIDUCIALS, 1)), fiducials], 1).T

    def forward(self, x):
        height, width = x.shape[2:]
        places = self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(self.locate(x), 1).flatten(1)))).reshape([-1, FIDUCIALS, 2])
        y, x_ = (np.arange(-size, size, 2) + 1.0 for size in (height, width))
        points = np.stack(np.meshgrid(x_ / width, y / height), 2).reshape(-1, 2)
        basis = np.concatenate([np.ones((len(points), 1)), points, bending(points)], 1) @ np.linalg.inv(delta)
        padded = paddle.concat([places, paddle.zeros([len(places), 3, 2])], axis=1)
        grid = paddle.matmul(paddle.to_tensor(basis.astype(np.float32)), padded).reshape([-1, height, width, 2])
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    layers = []
    for place in range(4):
        layers += [relu_conv_norm(3 if not place else channels << (place - 1), channels << place, 3), nn.MaxPool2D(2, 2)]
    network = named(forward, locate=nn.Sequential(*layers[:-1]), fc1=nn.Linear(8 * channels, hidden), fc2=nn.Linear(hidden, 2 * FIDUCIALS))
    network.fc2.weight.set_value(0.2 * network.fc2.weight)
    network.fc2.bias.set_value(
        paddle.to_tensor(fiducials.reshape(-1).astype(np.float32)) + paddle.uniform([2 * FIDUCIALS], min=-0.1, max=0.1)
    )
    return network, fiducials.reshape(-1)


def recogniser(backbone, channels, hidden, transform):
    children = {"transform": transform} if transform else {}
    children |= {"backbone": backbone}
    children |= {"lstm": nn.LSTM(channels, hidden, num_layers=2, direction="bidirectional")} if hidden else {}
    children["head"] = nn.Linear(2 * hidden or channels, CLASSES)

    def forward(self, x):
        steps = self.backbone(self.transform(x) if transform else x).squeeze(2).transpose([0, 2, 1])
        return F.softmax(self.head(self.lstm(steps)[0] if hidden else steps), axis=2)

    return named(forward, **children)


def in_order(network, hooked, kinds, children):
    """The layers of some kinds in the order in which they run, given as a function that runs the network."""
    found = []
    hooks = [hooked(layer)(lambda layer, *_: found.append(layer) or None) for layer in children(network) if isinstance(layer, kinds)]
    return found, hooks


def copied(theirs, ours, images, slope):
    """Give our layers the weights of theirs, which run in the same order."""
    kinds = (nn.Conv2D, nn.BatchNorm2D, nn.BatchNorm, nn.Linear)
    from_layers, hooks = in_order(theirs, lambda layer: layer.register_forward_post_hook, kinds, lambda one: one.sublayers())
    expected = theirs(paddle.to_tensor(images)).numpy()
    for hook in hooks:
        hook.remove()
    kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear)
    to_layers, hooks = in_order(ours, lambda layer: layer.register_forward_hook, kinds, lambda one: one.modules())
    with torch.no_grad():
        ours(torch.from_numpy(images))
        for hook in hooks:
            hook.remove()
        gates = {layer for name, layer in ours.named_modules() if name.endswith("squeeze.fc2")}
        for one, other in zip(from_layers, to_layers, strict=True):
            linear = isinstance(other, torch.nn.Linear)
            scale = 6 * slope if other in gates else 1
            weight = torch.from_numpy(one.weight.numpy()) * scale
            other.weight.copy_(weight.T if linear else weight)
            if other.bias is not None:
                other.bias.copy_(torch.from_numpy(one.bias.numpy()) * scale)
            if isinstance(other, torch.nn.BatchNorm2d):
                other.running_mean.copy_(torch.from_numpy(one._mean.numpy()))
                other.running_var.copy_(torch.from_numpy(one._variance.numpy()))
        copy_lstms(theirs, ours)
    return expected


def copy_lstms(theirs, ours):
    lstms = [module for module in ours.modules() if isinstance(module, torch.nn.LSTM)]
    for place, lstm in enumerate(lstms):
        end = "_reverse" if place % 2 else ""
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(lstm, f"{name}_l0").copy_(torch.from_numpy(getattr(theirs.lstm, f"{name}_l{place // 2}{end}").numpy()))


# Title -> our parts; their backbone; its channels; hidden channels of the LSTMs; height of a line; slope of the gates; transform.
MV3 = {"backbone": "mobilenet_v3_large", "sequence": "bilstm"}
R34 = {"backbone": "resnet34_vd", "sequence": {"name": "bilstm", "hidden": 256}}
RECOGNISERS = {
    "rec_mv3_none_bilstm_ctc": (MV3, mobilenet_v3_large, 480, 96, 32, 0.2, None),
    "rec_mv3_tps_bilstm_ctc": (MV3, mobilenet_v3_large, 480, 96, 32, 0.2, (16, 64)),
    "rec_r34_vd_none_bilstm_ctc": (R34, resnet34_vd, 512, 256, 32, 0.2, None),
    "rec_r34_vd_tps_bilstm_ctc": (R34, resnet34_vd, 512, 256, 32, 0.2, (64, 256)),
    "PP-OCRv2, without the middle layer of its head": (
        {"backbone": "mobilenet_v1_enhance_v2", "sequence": {"name": "bilstm", "hidden": 64}},
        mobilenet_v1_enhance_v2, 512, 64, 32, 1 / 6, None,
    ),
    "PP-OCRv4 server's backbone": ({"backbone": "pphgnet_small_lines", "sequence": "none"}, pphgnet, 1024, 0, 48, 1 / 6, None),
}  # fmt: skip


@pytest.mark.parametrize("title", RECOGNISERS)
def test_random_weights_give_the_same_probabilities(title):
    parts, backbone, channels, hidden, height, slope, transform = RECOGNISERS[title]
    paddle.seed(0)
    images = np.random.default_rng(0).standard_normal((2, 3, height, 104), np.float32)
    straighten, edges = spline(*transform) if transform else (None, None)
    theirs = with_statistics_of(recogniser(backbone(), channels, hidden, straighten), paddle.to_tensor(images))
    if transform:
        parts = {**parts, "transform": {"name": "tps", "channels": transform[0], "hidden": transform[1]}}
    ours = build({"name": "crnn", "alphabet": "digits", **parts}).network().eval()
    with paddle.no_grad():
        expected = copied(theirs, ours, images, slope)
    with torch.inference_mode():
        if transform:
            ours.transform.offsets.bias -= torch.from_numpy(edges.astype(np.float32))
        found = ours(torch.from_numpy(images))["probability"].numpy()
    assert expected.shape == found.shape
    assert expected.std() > 0.01
    difference = float(np.abs(found - expected).max())
    print(f"{title}: {sum(one.numel() for one in ours.parameters()):,} parameters, largest difference {difference:.2e}")
    assert difference < (3e-4 if transform else 1e-5)  # a thousandth of a pixel of noise, by a spline in single precision


DIMS, STEPS = 512, 12
START = 11  # the class after the blank and ten digits


def nrtr():
    """PaddleOCR's: the columns of two convolutions, 8 rows of 64 channels, are the steps of a Transformer without more ado."""
    convolutions = []
    for inputs, outputs in ((3, 32), (32, 64)):
        convolutions += [nn.Conv2D(inputs, outputs, 3, 2, 1), nn.ReLU(), nn.BatchNorm2D(outputs)]
    encoder = nn.LayerList([nn.TransformerEncoderLayer(DIMS, 8, 1024, 0.0, "relu") for _ in range(6)])
    decoder = nn.LayerList([nn.TransformerDecoderLayer(DIMS, 8, 1024, 0.0, "relu") for _ in range(6)])
    words, last = nn.Embedding(14, DIMS), nn.Linear(DIMS, 14)

    def positions(steps):
        angles = np.arange(steps)[:, None] * np.exp(np.arange(0, DIMS, 2) * (-np.log(10_000) / DIMS))
        table = np.zeros((steps, DIMS), np.float32)
        table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
        return paddle.to_tensor(table)

    def forward(self, x):
        maps = self.convolutions(x).transpose([0, 3, 2, 1])
        memory = maps.reshape([maps.shape[0], maps.shape[1], DIMS])
        memory = memory + positions(memory.shape[1])
        for layer in self.encoder:
            memory = layer(memory)
        classes, found = paddle.full([len(x), 1], START, dtype="int64"), []
        for step in range(1, STEPS + 1):
            y = self.words(classes) * DIMS**0.5 + positions(step)
            later = paddle.triu(paddle.full([step, step], -np.inf), 1)
            for layer in self.decoder:
                y = layer(y, memory, tgt_mask=later)
            found.append(F.softmax(self.last(y[:, -1]), axis=1))
            classes = paddle.concat([classes, found[-1].argmax(1, keepdim=True)], 1)
        return paddle.stack(found, 1)

    return named(forward, convolutions=nn.Sequential(*convolutions), encoder=encoder, decoder=decoder, words=words, last=last)


def put(ours, *theirs):
    """Into one linear layer those of theirs, one behind the other."""
    ours.weight.copy_(torch.cat([torch.from_numpy(one.weight.numpy()).T for one in theirs]))
    ours.bias.copy_(torch.cat([torch.from_numpy(one.bias.numpy()) for one in theirs]))


def put_block(ours, theirs):
    put(ours.mixer.qkv, theirs.self_attn.q_proj, theirs.self_attn.k_proj, theirs.self_attn.v_proj)
    put(ours.mixer.proj, theirs.self_attn.out_proj)
    if hasattr(theirs, "cross_attn"):
        put(ours.look.query, theirs.cross_attn.q_proj)
        put(ours.look.kv, theirs.cross_attn.k_proj, theirs.cross_attn.v_proj)
        put(ours.look.proj, theirs.cross_attn.out_proj)
    put(ours.feed[0], theirs.linear1)
    put(ours.feed[2].layer, theirs.linear2)
    for norm in ("norm1", "norm2", "norm3"):
        if hasattr(ours, norm):
            for key in ("weight", "bias"):
                getattr(getattr(ours, norm), key).copy_(torch.from_numpy(getattr(getattr(theirs, norm), key).numpy()))


def lively(network):
    """Norms and biases that do something, and characters that decide what comes next: each block adds little to them."""
    for layer in network.sublayers():
        if isinstance(layer, nn.LayerNorm):
            layer.weight.set_value(paddle.uniform(layer.weight.shape, min=0.5, max=1.5))
        if isinstance(layer, nn.LayerNorm | nn.Linear):
            layer.bias.set_value(paddle.uniform(layer.bias.shape, min=-0.05, max=0.05))
    for layer in network.decoder:
        for last in (layer.self_attn.out_proj, layer.cross_attn.out_proj, layer.linear2):
            last.weight.set_value(0.3 * last.weight)
    network.words.weight.set_value(5 * network.words.weight)
    return network


def test_nrtr_gives_the_same_probabilities_step_by_step():
    paddle.seed(0)
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 100), np.float32)
    theirs = with_statistics_of(lively(nrtr()), paddle.to_tensor(images))
    ours = build({"name": "nrtr", "height": 32, "hidden": 1024, "longest": STEPS - 1, "alphabet": "digits"}).network().eval()
    with paddle.no_grad(), torch.no_grad():
        expected = theirs(paddle.to_tensor(images)).numpy()
        for one, other in zip(theirs.convolutions, ours.backbone, strict=True):
            if isinstance(one, nn.Conv2D | nn.BatchNorm2D):
                other.weight.copy_(torch.from_numpy(one.weight.numpy()))
                other.bias.copy_(torch.from_numpy(one.bias.numpy()))
            if isinstance(one, nn.BatchNorm2D):
                other.running_mean.copy_(torch.from_numpy(one._mean.numpy()))
                other.running_var.copy_(torch.from_numpy(one._variance.numpy()))
        # Ours mixes the channels and rows of a column first; here it puts them one behind the other, as PaddleOCR does.
        ours.columns.weight.copy_(torch.eye(DIMS).reshape(DIMS, 8, 64, 1).transpose(1, 2))
        ours.columns.bias.zero_()
        for one, other in ((theirs.encoder, ours.encoder), (theirs.decoder, ours.decoder.blocks)):
            for layer, block in zip(one, other, strict=True):
                put_block(block, layer)
        ours.decoder.embedding.weight.copy_(torch.from_numpy(theirs.words.weight.numpy()))
        put(ours.decoder.classifier, theirs.last)
        found = ours(torch.from_numpy(images))["probability"].numpy()
    assert expected.shape == found.shape == (3, STEPS, 14)
    assert expected.std(axis=0).max() > 0.01, "lines differ"
    assert len(np.unique(expected.argmax(2))) > 3, "steps differ"
    difference = float(np.abs(found - expected).max())
    print(f"NRTR: {sum(one.numel() for one in ours.parameters()):,} parameters, largest difference {difference:.2e}")
    assert difference < 1e-5
