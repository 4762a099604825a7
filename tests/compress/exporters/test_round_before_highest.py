"""OpenVINO rounds the highest value of a column to a whole number where rounding to 8 bits follows it; exported files keep clear of that."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from compress.exporters.openvino import round_before_highest

LOW, HIGH = -0.4, 6.0
STEP = (HIGH - LOW) / 255


def rounded(values: np.ndarray) -> np.ndarray:
    return (np.round((values.clip(LOW, HIGH) - LOW) / STEP) * STEP + LOW).astype(np.float32)


def highest_then_rounded(kind: str, low, readers: int = 1) -> openvino.Model:
    """A map whose highest (or lowest) value of each column is rounded to 256 steps, and pooled, which needs no float."""
    image = ops.parameter(openvino.PartialShape([-1, 8, -1, -1]), np.float32)
    highest = getattr(ops, kind)(image, np.array([2]), True)
    step = ops.fake_quantize(highest, low, np.float32(HIGH), low, np.float32(HIGH), 256)
    pooled = ops.max_pool(step, [1, 2], [1, 1], [0, 0], [0, 0], [1, 2], "floor").output(0)
    return openvino.Model([ops.result(each) for each in (pooled, highest)[:readers]], [image], "columns")


def run(model: openvino.Model, images: np.ndarray) -> np.ndarray:
    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([images])[0]


@pytest.mark.parametrize(("kind", "taken"), [("reduce_max", np.max), ("reduce_min", np.min)])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_column_gives_its_highest_value_to_the_nearest_step(kind, taken, rows):
    images = np.random.default_rng(0).normal(1, 2, (2, 8, rows, 12)).astype(np.float32)
    model = highest_then_rounded(kind, np.float32(LOW))
    round_before_highest(model)
    columns = rounded(taken(images, axis=2, keepdims=True))
    np.testing.assert_allclose(run(model, images), np.maximum(columns[..., :-1:2], columns[..., 1::2]), atol=1e-5)


@pytest.mark.parametrize(("low", "readers"), [(np.float32(LOW), 2), (np.full((1, 8, 1, 1), LOW, np.float32), 1)])
def test_what_others_read_too_or_has_a_range_for_each_channel_stays(low, readers):
    model = highest_then_rounded("reduce_max", low, readers)
    before = [node.get_type_name() for node in model.get_ordered_ops()]
    round_before_highest(model)
    assert [node.get_type_name() for node in model.get_ordered_ops()] == before
