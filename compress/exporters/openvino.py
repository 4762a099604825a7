"""A network as an OpenVINO IR: an .xml file with the graph and a .bin file with the weights beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from compress.exporters.onnx import METADATA_KEY, onnx_model
from compress.exporters.upsampling import convolve_then_lay_out
from compress.runtimes.telemetry import forbid_telemetry

if TYPE_CHECKING:
    import openvino

COUNTED = re.compile(r"_\d+$")


def export_openvino(network: nn.Module, path: Path | str, example: Tensor, description: Mapping[str, Any]) -> Path:
    """Write the evaluation maps of `network` to `path` (.xml) and the .bin beside it, with batch, height and width left open.

    Arguments as for :func:`compress.exporters.onnx.export_onnx`; the description is the IR's runtime information "compress".
    Float weights stay float32. The ONNX graph is read by OpenVINO itself: its converter for torch takes half a minute, and its
    model optimiser leaves eight more of DB's convolutions in float.
    """
    forbid_telemetry()
    import openvino

    graph = onnx_model(network, example, description, rearrange=convolve_then_lay_out)
    text = graph.metadata_props.pop().value
    model = openvino.Core().read_model(graph.SerializeToString())
    model.set_rt_info(text, METADATA_KEY)
    fold_shapes(model)
    join_round_trips(model)
    number_names(model)
    path = Path(path)
    partial = path.with_name(f"partial.{path.name}")
    files = [(partial.with_suffix(suffix), path.with_suffix(suffix)) for suffix in (".bin", ".xml")]
    try:
        openvino.save_model(model, partial, compress_to_fp16=False)
        for written, final in files:
            written.replace(final)
    finally:
        for written, _ in files:
            written.unlink(missing_ok=True)
    return path


def fold_shapes(model: openvino.Model) -> None:
    """Compute in advance what does not depend on the images, int8 weights excepted: a third of the .xml.

    Folding would turn int8 weights into float ones, so they are the model's parameters while it is done.
    """
    from openvino import Type as ElementType
    from openvino import op, passes

    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    weights = [constant for constant in constants if constant.get_element_type() == ElementType.i8]
    stand_ins = [op.Parameter(ElementType.i8, weight.get_output_partial_shape(0)) for weight in weights]
    for weight, stand_in in zip(weights, stand_ins, strict=True):
        replace_source(weight, stand_in)
    model.add_parameters(stand_ins)
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    for weight, stand_in in zip(weights, stand_ins, strict=True):
        replace_source(stand_in, weight)
        model.remove_parameter(stand_in)


def join_round_trips(model: openvino.Model) -> None:
    """Write each activation's way to 8 bits and back as one FakeQuantize that gives the range it takes: half of an int8 .xml.

    ONNX's pair arrives as a FakeQuantize to 0..255, two conversions, minus the zero point, times the step. OpenVINO's own optimiser
    joins them just so before it looks for integer convolutions.
    """
    for rounding in [node for node in model.get_ops() if node.get_type_name() == "FakeQuantize"]:
        last = rounding
        for kind in ("Convert", "Convert", "Subtract", "Multiply"):
            readers = last.output(0).get_target_inputs()
            last = next(iter(readers)).get_node()
            if len(readers) != 1 or last.get_type_name() != kind:
                break
        else:
            for given, taken in ((3, 1), (4, 2)):
                rounding.input(given).replace_source_output(rounding.input_value(taken))
            replace_source(last, rounding)


def number_names(model: openvino.Model) -> None:
    """Number what OpenVINO has named by the place in the graph, and not by how many nodes the process has made before.

    So the same weights give the same bytes, whatever was exported or loaded earlier.
    """
    for place, node in enumerate(model.get_ordered_ops()):
        name = node.get_friendly_name()
        node.set_friendly_name(COUNTED.sub(f"_{place}", name))


def replace_source(old: openvino.Node, new: openvino.Node) -> None:
    """Let everything that reads `old` read `new`."""
    for reader in old.output(0).get_target_inputs():
        reader.replace_source_output(new.output(0))
