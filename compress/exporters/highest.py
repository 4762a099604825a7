"""The highest value of a column, taken of values that are rounded to 8 bits, not rounded itself: the same, since rounding keeps order.

OpenVINO (2026.4), shown a ReduceMax and then a QuantizeLinear, rounds the highest values to whole numbers before it divides them by the
step: of features between -0.4 and 6, in steps of 0.025, that leaves seven. The lowest values, too; means and sums are right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.exporters.upsampling import constant, readers

if TYPE_CHECKING:
    import onnx

HIGHEST = ("ReduceMax", "ReduceMin")


def round_before_highest(model: onnx.ModelProto) -> None:
    """Let each ReduceMax that only a QuantizeLinear reads, with one step for all channels, stand behind it and its DequantizeLinear."""
    graph = model.graph
    maps = {value.name for value in graph.output}
    for highest in [node for node in graph.node if node.op_type in HIGHEST and node.output[0] not in maps]:
        following = readers(graph, highest.output[0])
        if [node.op_type for node in following] != ["QuantizeLinear"] or constant(graph, following[0].input[1]).ndim:
            continue
        (there,), back = following, readers(graph, following[0].output[0])
        if [node.op_type for node in back] != ["DequantizeLinear"]:
            continue
        there.input[0], highest.input[0] = highest.input[0], highest.output[0]
        back[0].output[0], highest.output[0] = highest.output[0], back[0].output[0]
        graph.node.remove(highest)
        graph.node.insert(list(graph.node).index(back[0]) + 1, highest)
