"""A PP-OCR detector or classifier as paddle2onnx and `paddle.save` write one, with random weights and few channels."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LARGE = [
    *[(3, 1, "Relu"), (3, 2, "Relu"), (3, 1, "Relu"), (5, 2, "Relu"), (5, 1, "Relu"), (5, 1, "Relu")],
    *[(3, 2, "HardSwish"), *[(3, 1, "HardSwish")] * 5, (5, 2, "HardSwish"), *[(5, 1, "HardSwish")] * 2],
]
# Widths as after pruning, odd ones among them. Block 10 changes its width in the unpruned network, and by accident not here.
WIDTHS = (7, 5, 5, 6, 6, 6, 9, 9, 9, 9, 9, 9, 11, 11, 11)
RESIDUAL = (0, 2, 4, 5, 7, 8, 9, 11, 13, 14)
PLACES = [f"stage{stage}.{place}" for stage, count in enumerate((3, 3, 6, 3)) for place in range(count)]


class PaddleFile:
    """Adds layers to a graph, and their weights to a dict under Paddle's names. Tensors are named by text; `widths` are their channels.

    identities: whether an Identity stands between a layer and its bias, as newer versions of paddle2onnx write it.
    reshapes: whether the bias of a convolution is a constant that is reshaped and added, as older ones do, which spell out hard-swish, too.
    """

    def __init__(self, seed: int, identities: bool = False, reshapes: bool = False) -> None:
        self.identities = identities
        self.reshapes = reshapes
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.parameters: dict[str, np.ndarray] = {}
        self.widths = {"x": 3}

    def constant(self, array: Any) -> str:
        name = f"constant_{len(self.constants)}"
        tensor = numpy_helper.from_array(np.asarray(array), name)
        self.constants.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def parameter(self, name: str, array: np.ndarray) -> np.ndarray:
        self.parameters[name] = array.astype(np.float32)
        return self.parameters[name]

    def run(self, kind: str, inputs: list[str], width: int | None = None, **attributes: Any) -> str:
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        self.widths[output] = width or self.widths[inputs[0]]
        return output

    def conv(self, x: str, name: str, width: int, kernel: Any, stride: Any = 1, depthwise: bool = False, bias: bool = False) -> str:
        inputs, groups = self.widths[x], self.widths[x] if depthwise else 1
        sides = [kernel, kernel] if isinstance(kernel, int) else list(kernel)
        spread = (inputs // groups * sides[0] * sides[1]) ** -0.5
        weight = self.parameter(f"{name}.weight", self.rng.normal(0, spread, (width, inputs // groups, *sides)))
        read = [x, self.constant(weight)]
        shift = self.constant(self.parameter(f"{name}.bias", self.rng.normal(0, 0.3, width))) if bias else ""
        if bias and not self.reshapes:
            read.append(shift)
        strides = [stride, stride] if isinstance(stride, int) else list(stride)
        pads = [side // 2 for side in sides] * 2
        y = self.run("Conv", read, width, group=groups, strides=strides, pads=pads, kernel_shape=sides, dilations=[1, 1])
        if bias and self.reshapes:
            y = self.run("Add", [y, self.run("Reshape", [shift, self.constant(np.array([1, -1, 1, 1]))], width)])
        return y

    def norm(self, x: str, name: str) -> str:
        width, rng = self.widths[x], self.rng
        arrays = {
            "weight": rng.uniform(0.6, 1.4, width),
            "bias": rng.normal(0, 0.3, width),
            "_mean": rng.normal(0, 0.3, width),
            "_variance": rng.uniform(0.5, 1.5, width),
        }
        read = [self.constant(self.parameter(f"{name}.{part}", array)) for part, array in arrays.items()]
        return self.run("BatchNormalization", [x, *read], epsilon=1e-5, momentum=0.9)

    def conv_norm(self, x: str, name: str, width: int, kernel: int = 1, act: str | None = None, **options: Any) -> str:
        x = self.norm(self.conv(x, f"{name}.conv", width, kernel, **options), f"{name}.bn")
        if act == "HardSwish" and self.reshapes:
            return self.spelt_hard_swish(x)
        return self.run(act, [x]) if act else x

    def spelt_hard_swish(self, x: str) -> str:
        clipped = self.run("Clip", [self.run("Add", [x, self.number(3)]), self.number(0), self.number(6)])
        return self.run("Div", [self.run("Mul", [x, clipped]), self.number(6)])

    def number(self, value: float) -> str:
        return self.constant(np.float32(value))

    def affine(self, x: str, name: str) -> str:
        """PP-LCNetV3's: one number that multiplies and one that is added."""
        scale = self.parameter(f"{name}.scale", self.rng.uniform(0.7, 1.3, 1))
        shift = self.parameter(f"{name}.bias", self.rng.uniform(-0.3, 0.3, 1))
        return self.run("Add", [self.run("Mul", [self.constant(scale), x], self.widths[x]), self.constant(shift)])

    def reparameterised(self, x: str, name: str, width: int, kernel: int, stride: int = 1, depthwise: bool = False) -> str:
        """PP-LCNetV3's convolution, its branches merged; no activation where the resolution is halved."""
        y = self.conv(x, f"{name}.reparam_conv", width, kernel, stride, depthwise, bias=True)
        y = self.affine(y, f"{name}.lab")
        return y if stride == 2 else self.affine(self.spelt_hard_swish(y), f"{name}.act.lab")

    def squeeze(self, x: str, name: str, slope: float = 0.2) -> str:
        width = self.widths[x]
        gate = self.conv(self.run("GlobalAveragePool", [x]), f"{name}.conv1", max(1, width // 4), 1, bias=True)
        gate = self.conv(self.run("Relu", [gate]), f"{name}.conv2", width, 1, bias=True)
        return self.run("Mul", [x, self.run("HardSigmoid", [gate], alpha=slope, beta=0.5)])

    def block(self, x: str, name: str, inner: int, width: int, kernel: int, stride: Any, act: str, residual: bool, squeeze: bool) -> str:
        y = self.conv_norm(x, f"{name}.expand_conv", inner, act=act)
        y = self.conv_norm(y, f"{name}.bottleneck_conv", inner, kernel, act=act, stride=stride, depthwise=True)
        y = self.squeeze(y, f"{name}.mid_se") if squeeze else y
        y = self.conv_norm(y, f"{name}.linear_conv", width)
        return self.run("Add", [x, y]) if residual else y

    def enlarge(self, x: str, times: float) -> str:
        scales = self.constant(np.array([1, 1, times, times], np.float32))
        options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.run("Resize", [x, "", scales], **options)

    def deconv(self, x: str, name: str, width: int) -> str:
        """With its bias as an Add of its own."""
        inputs = self.widths[x]
        weight = self.parameter(f"{name}.weight", self.rng.normal(0, 2 * inputs**-0.5, (inputs, width, 2, 2)))
        bias = self.parameter(f"{name}.bias", self.rng.normal(0, 0.5, width))
        y = self.run("ConvTranspose", [x, self.constant(weight)], width, strides=[2, 2], kernel_shape=[2, 2], pads=[0] * 4)
        y = self.run("Identity", [y]) if self.identities else y
        return self.run("Add", [y, self.constant(bias.reshape(1, -1, 1, 1))])

    def write(self, folder: Path, output: str, shape: list[Any]) -> tuple[Path, Path]:
        """`model.onnx` and `model.pdparams` in `folder`."""
        source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, "h", "w"])
        target = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        graph = helper.make_graph([*self.constants, *self.nodes], "paddle", [source], [target])
        path = folder / "model.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), str(path))
        return path, write_pdparams(folder / "model.pdparams", self.parameters)


def write_pdparams(path: Path, parameters: dict[str, np.ndarray], protocol: int = 4) -> Path:
    """As `paddle.save` does: arrays, and a table of Paddle's own names beside them."""
    table = {name: f"parameter_{index}.w_0" for index, name in enumerate(parameters)}
    path.write_bytes(pickle.dumps({**parameters, "StructuredToParameterName@@": table}, protocol=protocol))
    return path


def detector(folder: Path, *, neck: str = "rse_fpn", training: bool = False, seed: int = 0, act: str = "HardSwish") -> tuple[Path, Path]:
    """PP-OCR's mobile detector. training: with the threshold branch, and its maps in the output. act: of the stem."""
    file = PaddleFile(seed)
    x = file.conv_norm("x", "backbone.conv", 6, 3, act=act, stride=2)
    taps = []
    for index, ((kernel, stride, act), width) in enumerate(zip(LARGE, (6, *WIDTHS[1:]), strict=True)):
        x = file.block(x, f"backbone.{PLACES[index]}", 8 + index, width, kernel, stride, act, index in RESIDUAL, False)
        taps += [x] if index in (2, 5, 11) else []
    taps.append(file.conv_norm(x, "backbone.stage3.3", 17, act="HardSwish"))
    joined = fpn(file, taps, neck)
    maps = [branch(file, joined, "head.binarize")]
    if training:
        maps.append(branch(file, joined, "head.thresh"))
        steep = file.run("Mul", [file.run("Sub", maps), file.constant(np.array([-50.0], np.float32))])
        maps.append(file.run("Reciprocal", [file.run("Add", [file.run("Exp", [steep]), file.constant(np.array([1.0], np.float32))])]))
        maps = [file.run("Concat", maps, axis=1)]
    return file.write(folder, maps[0], ["b", 3 if training else 1, "h", "w"])


def mobile_v4_detector(folder: Path) -> tuple[Path, Path]:
    """PP-OCRv4's mobile detector: PP-LCNetV3, whose activations are scaled and shifted by a number each, with RSE-FPN."""
    file = PaddleFile(0)
    x, taps = file.conv_norm("x", "backbone.conv1", 6, 3, stride=2), []
    for stage, (kernels, width) in enumerate((("3", 7), ("33", 8), ("33", 9), ("35555", 10), ("5555", 12)), 2):
        for place, kernel in enumerate(kernels):
            name, stride = f"backbone.blocks{stage}.{place}", 2 if stage > 2 and not place else 1
            x = file.reparameterised(x, f"{name}.dw_conv", file.widths[x], int(kernel), stride, depthwise=True)
            x = file.squeeze(x, f"{name}.se", slope=1 / 6) if stage == 6 and place < 2 else x
            x = file.reparameterised(x, f"{name}.pw_conv", width, 1)
        taps += [x] if stage > 2 else []
    taps = [file.conv(tap, f"backbone.layer_list.{level}", 4 + level, 1, bias=True) for level, tap in enumerate(taps)]
    return file.write(folder, branch(file, fpn(file, taps, "rse_fpn"), "head.binarize"), ["b", 1, "h", "w"])


def fpn(file: PaddleFile, taps: list[str], neck: str) -> str:
    def layer(x: str, level: int, kind: str, width: int, kernel: int) -> str:
        if neck == "db_fpn":
            return file.conv(x, f"neck.{'in' if kind == 'ins' else 'p'}{level + 2}_conv", width, kernel)
        y = file.conv(x, f"neck.{kind}_conv.{level}.in_conv", width, kernel)
        return file.run("Add", [y, file.squeeze(y, f"neck.{kind}_conv.{level}.se_block")])

    levels = {level: layer(taps[level], level, "ins", 12, 1) for level in (3, 2, 1, 0)}
    for level in (2, 1, 0):
        levels[level] = file.run("Add", [levels[level], file.enlarge(levels[level + 1], 2)])
    smooth = {level: layer(levels[level], level, "inp", 4 + level % 2, 3) for level in (3, 2, 1, 0)}
    parts = [file.enlarge(smooth[level], 2**level) if level else smooth[0] for level in (3, 2, 1, 0)]
    return file.run("Concat", parts, sum(file.widths[part] for part in parts), axis=1)


def branch(file: PaddleFile, x: str, name: str, kernel: int = 3) -> str:
    return file.run("Sigmoid", [file.deconv(branch_features(file, x, name, kernel), f"{name}.conv3", 1)])


def branch_features(file: PaddleFile, x: str, name: str, kernel: int) -> str:
    x = file.run("Relu", [file.norm(file.conv(x, f"{name}.conv1", 9, kernel), f"{name}.conv_bn1")])
    return file.run("Relu", [file.norm(file.deconv(x, f"{name}.conv2", 7), f"{name}.conv_bn2")])


def server_detector(folder: Path, kind: str) -> tuple[Path, Path]:
    """PP-OCR's larger detectors: `resnet50_vd` is that of PP-OCRv3's teacher, `pphgnet` PP-OCRv4's."""
    file = PaddleFile(0, identities=True)
    taps = resnet_vd(file) if kind == "resnet50_vd" else pphgnet(file)
    joined = lkpan(file, taps, intracl=kind == "pphgnet")
    if kind == "resnet50_vd":
        output = branch(file, joined, "head.binarize", kernel=7)
    else:
        features = branch_features(file, joined, "head.binarize", 3)
        first = file.run("Sigmoid", [file.deconv(features, "head.binarize.conv3", 1)])
        seen = file.run("Concat", [first, file.enlarge(features, 2)], 1 + file.widths[features], axis=1)
        seen = file.conv_norm(seen, "head.cbn_layer.last_3", 6, 3, act="Relu")
        second = file.run("Sigmoid", [file.conv(seen, "head.cbn_layer.last_1", 1, 1, bias=True)])
        output = file.run("Mul", [file.run("Add", [first, second]), file.constant(np.array(0.5, np.float32))])
    return file.write(folder, output, ["b", 1, "h", "w"])


def resnet_vd(file: PaddleFile) -> list[str]:
    def layer(x: str, name: str, width: int, kernel: int = 1, stride: int = 1, act: str | None = "Relu") -> str:
        x = file.norm(file.conv(x, f"backbone.{name}._conv", width, kernel, stride), f"backbone.{name}._batch_norm")
        return file.run(act, [x]) if act else x

    x, taps = layer(layer(layer("x", "conv1_1", 5, 3, 2), "conv1_2", 4, 3), "conv1_3", 6, 3), []
    x = file.run("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, depth in enumerate((3, 4, 6, 3)):
        for index in range(depth):
            name, stride = f"bb_{stage}_{index}", 2 if stage and not index else 1
            y = layer(layer(layer(x, f"{name}.conv0", 3), f"{name}.conv1", 4, 3, stride), f"{name}.conv2", 5 + stage, act=None)
            if index == 0:
                x = file.run("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2]) if stride == 2 else x
                x = layer(x, f"{name}.short", 5 + stage, act=None)
            x = file.run("Relu", [file.run("Add", [x, y])])
        taps.append(x)
    return taps


def pphgnet(file: PaddleFile) -> list[str]:
    x, taps = "x", []
    for number, width in enumerate((4, 5, 6)):
        x = file.conv_norm(x, f"backbone.stem.{number}", width, 3, act="Relu", stride=1 if number else 2)
    x = file.run("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, blocks in enumerate((1, 1, 2, 1)):
        if stage:
            x = file.conv_norm(x, f"backbone.stages.{stage}.downsample", file.widths[x], 3, stride=2, depthwise=True)
        for index in range(blocks):
            name, outputs = f"backbone.stages.{stage}.blocks.{index}", [x]
            for number in range(6):
                outputs.append(file.conv_norm(outputs[-1], f"{name}.layers.{number}", 3, 3, act="Relu"))
            y = file.run("Concat", outputs, sum(file.widths[output] for output in outputs), axis=1)
            y = file.conv_norm(y, f"{name}.aggregation_conv", 7 + stage, act="Relu")
            gate = file.conv(file.run("GlobalAveragePool", [y]), f"{name}.att.conv", 7 + stage, 1, bias=True)
            y = file.run("Mul", [y, file.run("Sigmoid", [gate])])
            x = file.run("Add", [x, y]) if index else y
        taps.append(x)
    return taps


def lkpan(file: PaddleFile, taps: list[str], intracl: bool) -> str:
    levels = {level: file.conv(taps[level], f"neck.ins_conv.{level}", 9, 1) for level in (3, 2, 1, 0)}
    for level in (2, 1, 0):
        levels[level] = file.run("Add", [levels[level], file.enlarge(levels[level + 1], 2)])
    levels = {level: file.conv(levels[level], f"neck.inp_conv.{level}", 4, 9) for level in (3, 2, 1, 0)}
    for level in (1, 2, 3):
        levels[level] = file.run("Add", [levels[level], file.conv(levels[level - 1], f"neck.pan_head_conv.{level - 1}", 4, 3, 2)])
    levels = {level: file.conv(levels[level], f"neck.pan_lat_conv.{level}", 5, 9) for level in (0, 1, 2, 3)}
    for level in (3, 2, 1, 0) if intracl else ():
        name, x = f"neck.incl{level + 1}", levels[level]
        y = file.conv(x, f"{name}.conv1x1_reduce_channel", 3, 1, bias=True)
        for size in (7, 5, 3):
            square = file.conv(y, f"{name}.c_layer_{size}x{size}", 3, size, bias=True)
            column = file.conv(y, f"{name}.v_layer_{size}x1", 3, (size, 1), bias=True)
            row = file.conv(y, f"{name}.q_layer_1x{size}", 3, (1, size), bias=True)
            y = file.run("Add", [file.run("Add", [square, column]), row])
        y = file.run("Relu", [file.norm(file.conv(y, f"{name}.conv1x1_return_channel", 5, 1, bias=True), f"{name}.bn")])
        levels[level] = file.run("Add", [x, y])
    parts = [file.enlarge(levels[level], 2**level) if level else levels[0] for level in (3, 2, 1, 0)]
    return file.run("Concat", parts, sum(file.widths[part] for part in parts), axis=1)


def classifier(folder: Path, seed: int = 0, reshapes: bool = False) -> tuple[Path, Path]:
    """PP-OCR's angle classifier: strides halve the height alone. reshapes: as an older version of paddle2onnx writes it."""
    file = PaddleFile(seed, reshapes=reshapes)
    kernels, halving = (3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5), (0, 1, 3, 8)
    x = file.conv_norm("x", "backbone.conv1", 8, 3, act="HardSwish", stride=2)
    for index, kernel in enumerate(kernels):
        width = 8 if index < 3 else 10 if index < 8 else 12
        stride, act = ((2, 1) if index in halving else 1), "Relu" if index < 3 else "HardSwish"
        residual, name = index in (2, 4, 5, 6, 7, 9, 10), f"backbone.blocks.{index}"
        x = file.block(x, name, 8, width, kernel, stride, act, residual, squeeze=index not in (1, 2))
    x = file.conv_norm(x, "backbone.conv2", 15, act="HardSwish")
    x = file.run("GlobalAveragePool", [file.run("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])])
    x = file.run("Reshape", [x, file.constant(np.array([-1, 15]))])
    weight = file.parameter("head.fc.weight", file.rng.normal(0, 1, (15, 2)))
    bias = file.parameter("head.fc.bias", file.rng.normal(0, 1, 2))
    x = file.run("Add", [file.run("MatMul", [x, file.constant(weight)]), file.constant(bias)])
    return file.write(folder, file.run("Softmax", [x], axis=1), ["b", 2])
