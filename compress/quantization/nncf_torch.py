"""Everything that is said to NNCF, in one place.

A quantized network is the original one with its batch norms folded and fake quantizers hooked onto weights and activations:
it runs and trains like any other module. What runs in training alone (DB's threshold branch) is not quantized.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from compress.errors import CompressError, suggestion
from compress.files import parse_json
from compress.models.layers import Unrolled
from compress.quantization.fake_quantize import FUNCTIONS
from compress.quantization.folding import BatchNorm, fold_batch_norms
from compress.quantization.settings import Quantizers
from compress.quantization.sixteen_bits import leave_room
from compress.runtimes.telemetry import forbid_telemetry

HOOKS = "__nncf_hooks."
WATCHED = 16  # batches by which it is known how far activations reach


@contextlib.contextmanager
def quiet_nncf() -> Iterator[ModuleType]:
    """NNCF without telemetry, compiled extensions, log lines and progress bars."""
    forbid_telemetry()
    import nncf
    import nncf.torch
    from nncf.torch.quantization import quantize_functions

    quantize_functions.QuantizedFunctionsCPU = quantize_functions.QuantizedFunctionsCUDA = FUNCTIONS
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield nncf
    finally:
        logger.setLevel(level)


def quantize(
    network: nn.Module, calibration: Iterable[Tensor], example: Tensor, keep_float: Sequence[str] = (), settings: Quantizers | None = None
) -> nn.Module:
    """A quantized copy of `network`, in evaluation mode: post-training quantization, and the start of quantization-aware training.

    Weights are int8, symmetric; activations 8 bit with one scale a tensor, which integer convolutions need. The same batches give
    the same quantizers. `network` itself is left as it was.

    calibration: normalised (B, 3, H, W) batches, all of which are used. example: one such batch, of any content.
    keep_float: `fnmatch` patterns on module names; every weighted layer in or under a matching module stays float, as does all of an
    :class:`Unrolled`.
    settings: what quantizers, and how their ranges are chosen; the defaults of :class:`Quantizers` unless given.
    Raises CompressError for a pattern that matches no module, and for an empty `calibration`.
    """
    settings = settings or Quantizers()
    batches = list(calibration)
    if not batches:
        raise CompressError("Quantization needs at least one calibration batch, and the data gave none; use a larger split.")
    kept = matching_modules(network, keep_float) | layer_norms(network)
    folded = copy.deepcopy(network).eval()
    fold_batch_norms(folded, example)
    with quiet_nncf() as nncf:
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix, QuantizationParameters

        advanced = AdvancedQuantizationParameters(
            activations_quantization_params=QuantizationParameters(per_channel=False),
            weights_quantization_params=QuantizationParameters(per_channel=settings.per_channel),
            activations_range_estimator_params=range_estimator(settings),
            disable_bias_correction=not settings.bias_correction,
            overflow_fix=OverflowFix.DISABLE if settings.without_vnni else OverflowFix.FIRST_LAYER,
        )
        try:
            result: nn.Module = nncf.quantize(
                folded,
                nncf.Dataset(batches),
                preset=nncf.QuantizationPreset.MIXED if settings.activations == "asymmetric" else nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(batches),
                ignored_scope=nncf.IgnoredScope(names=operators_of(folded, example, kept), validate=False),
                advanced_parameters=advanced,
            )
        except IndexError:  # NNCF 3.4 finds no statistics for a layer between which and its batch norm another reader sits
            if not settings.bias_correction or not any(isinstance(module, BatchNorm) for module in folded.modules()):
                raise
            raise CompressError(
                "Biases cannot be corrected in this network, because a batch norm in it could not be folded; set bias_correction: false."
            ) from None
    if settings.without_vnni:
        leave_room(result, layer_quantizers(result, example), batches[:WATCHED], correct_biases=settings.bias_correction)
    return result


def range_estimator(settings: Quantizers) -> Any:
    """NNCF's parameters for the ranges of activations."""
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Known

    known = {
        "mean_min_max": Known.MEAN_MINMAX,
        "min_max": Known.MINMAX,
        "percentile": Known.MEAN_QUANTILE,
        "histogram": Known.HISTOGRAM,
    }
    estimator = copy.deepcopy(known[settings.ranges])
    if settings.ranges == "percentile":
        estimator.min.quantile_outlier_prob = estimator.max.quantile_outlier_prob = 1 - settings.percentile / 100
    return estimator


def matching_modules(network: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Names of the modules that match any pattern, with all modules under them. CompressError for a pattern that matches none."""
    names = [name for name, _ in network.named_modules() if name]
    matched = set()
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise CompressError(f"keep_float: no layer's name matches '{pattern}'{suggestion(pattern, names)}")
        matched.update(found)
    return {name for name in names if any(name == top or name.startswith(f"{top}.") for top in matched)}


def layer_norms(network: nn.Module) -> set[str]:
    """Names of the layer norms. They stay float: no runtime computes them in integers, and NNCF 3.4 fails on their weights."""
    return {name for name, module in network.named_modules() if isinstance(module, nn.LayerNorm)}


def operators_of(network: nn.Module, example: Tensor, modules: set[str]) -> list[str]:
    """NNCF's names of the operators that read a weight of one of `modules`, and of all operators of an :class:`Unrolled`: errors of its
    steps would add up, and a quantizer for each of them would weigh more than it saves.

    NNCF names an operator by its place in the calls, without the index in a `ModuleList`, so names alone do not tell layers
    apart; the weight that an operator reads does.
    """
    from nncf.torch.function_hook import wrap_model
    from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph

    graph = build_nncf_graph(wrap_model(copy.deepcopy(network)), example)
    unrolled = tuple(name.replace(".", "/") + "/" for name, module in network.named_modules() if isinstance(module, Unrolled))
    steps = [node.node_name for node in graph.get_all_nodes() if node.node_name.startswith(unrolled)]
    return steps + [
        node.node_name
        for node in graph.get_all_nodes()
        for parent in graph.get_previous_nodes(node)
        if getattr(parent.layer_attributes, "name", "").rpartition(".")[0] in modules
    ]


def quantizers(network: nn.Module) -> dict[str, nn.Module]:
    """Hook name -> quantizer; a quantizer that several places share appears under each name. Empty if nothing is quantized."""
    prefix = HOOKS
    return {
        name.removeprefix(prefix): module
        for name, module in network.named_modules(remove_duplicate=False)
        if name.startswith(prefix) and name.count(".") == prefix.count(".") + 2
    }


def is_quantized(network: nn.Module) -> bool:
    """Whether :func:`quantize` or :func:`restore` made this network."""
    return bool(quantizers(network))


def layer_quantizers(network: nn.Module, example: Tensor) -> dict[str, list[nn.Module]]:
    """Layer name -> the quantizer of its weight and those that its input has last passed; of every layer in integers, in their order.

    An input may pass several (the levels of a concatenation) and share one with other layers.
    """
    from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph

    graph = build_nncf_graph(network, example)
    nodes = graph.get_all_nodes()
    parents = {node.node_id: graph.get_previous_nodes(node) for node in nodes}
    names = {key: [getattr(parent.layer_attributes, "name", "") for parent in found] for key, found in parents.items()}
    hooked = quantizers(network)
    rounding = {
        key: hooked[name[len(HOOKS) :].rpartition(".")[0]] for key, read in names.items() for name in read if name.startswith(HOOKS)
    }
    weighted = {key: name.rpartition(".")[0] for key, read in names.items() for name in read if name and not name.startswith(HOOKS)}
    weights = rounding.keys() & weighted.keys()

    def passed(key: int) -> list[nn.Module]:
        """The quantizers nearest above a node, itself included, with no weighted layer between."""
        if key in rounding:
            return [rounding[key]]
        above = [parent.node_id for parent in parents[key]]
        if key in weighted or weights.intersection(above):
            return []
        return [module for parent in above for module in passed(parent)]

    layers = {}
    for node in nodes:
        above = [parent.node_id for parent in parents[node.node_id]]
        for weight in weights.intersection(above):
            inputs = [module for parent in above if parent != weight for module in passed(parent)]
            layers[weighted[weight]] = list(dict.fromkeys([rounding[weight], *inputs]))
    return layers


def enable_only(network: nn.Module, wanted: Collection[nn.Module]) -> None:
    """Let the quantizers in `wanted` round and all others of `network` pass their values, in place."""
    every: set[Any] = set(quantizers(network).values())
    for quantizer in every:
        if quantizer in wanted:
            quantizer.enable_quantization()
        else:
            quantizer.disable_quantization()


def without_rounding(network: nn.Module) -> nn.Module:
    """A copy of a quantized network that computes in float: every quantizer lets its values pass."""
    plain = copy.deepcopy(network)
    enable_only(plain, ())
    return plain


def config_json(network: nn.Module) -> str:
    """Where the quantizers of a quantized network sit and of what kind they are; their ranges are in its state."""
    with quiet_nncf() as nncf:
        return json.dumps(nncf.torch.get_config(network), indent=1, sort_keys=True)


def restore(network: nn.Module, config: str, example: Tensor) -> nn.Module:
    """Hook quantizers into `network`, in place, as :func:`config_json` says; load the state afterwards, strictly.

    network: of the structure that was quantized, batch norms folded (:func:`compress.quantization.folding.fold_like`).
    example: (B, 3, H, W), run once to see that every quantizer has its place: one whose operator is not there would never be
    called, and loading its range would succeed all the same.
    Raises CompressError if `config` is not such a description, or is one of another architecture.
    """
    with quiet_nncf() as nncf:
        from nncf.torch.function_hook.hook_storage import decode_hook_name
        from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph

        described = parse_json(config, dict[str, Any], "The description of the quantizers")
        try:
            restored = nncf.torch.load_from_config(network, described).eval()
            present = {node.node_name for node in build_nncf_graph(restored, example).get_all_nodes()}
        except Exception as error:  # whatever a wrong description makes NNCF and torch raise
            told = " ".join(str(error).split())[:200]
            raise CompressError(f"The description of the quantizers is not of this network ({told}); quantize the model again.") from error
        for name in quantizers(restored):
            operator = decode_hook_name(name)[1]
            if operator not in present:
                raise CompressError(f"The quantizers belong to another architecture: this one has no operator '{operator}'.")
        return restored


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The state with every tensor on its own, contiguous, as safetensors wants it; shared quantizers are written under each name."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
