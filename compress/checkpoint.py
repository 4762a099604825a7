"""A model on disk: `model.yml` says how to build the unpruned architecture, `model.safetensors` holds the weights.

The weights' shapes say which channels are left, their names which batch norms were folded; `quantization.json`, where there is one,
says where NNCF's quantizers sit. One loader serves evaluation, pruning, distillation, quantization and export. None of these files is
changed once it is written: what `compress eval --tune` finds stands in `tuned.json` beside them.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from compress import pipeline
from compress.cost import unshipped
from compress.data.prepare import network_input
from compress.description import TUNED, Described, check_tuned, read_tuned, told, understood
from compress.errors import CompressError
from compress.files import read_tensors, read_text, tensors_digest, write_tensors, write_text
from compress.models.contract import Algorithm
from compress.outside import build
from compress.quantization.folding import fold_like
from compress.safe_gradients import make_gradients_safe
from compress.stage_folder import check_whole
from compress.tasks import TASKS
from compress.tasks.task import Evaluate
from compress.yaml_text import read_yaml

FORMAT = 1
DESCRIPTION, WEIGHTS, QUANTIZATION = "model.yml", "model.safetensors", "quantization.json"
SMALL = 1 << 14  # pixels


@dataclass
class Model:
    """A network, pruned or not, quantized or not, with the algorithm that it belongs to.

    config: the `model` section that builds the unpruned architecture. evaluate: how it is meant to be shown images.
    tuned: `settings` chosen on a validation split by `compress eval --tune`, and the `val_score` that they reach; empty where none were.
    quantization: NNCF's configuration as a JSON string, or None for a float network.
    """

    config: dict[str, Any]
    network: nn.Module
    algorithm: Algorithm
    evaluate: Evaluate
    tuned: dict[str, Any] = field(default_factory=dict)
    quantization: str | None = None

    def with_network(self, network: nn.Module, quantization: str | None = None) -> Model:
        """The same model with another network in it."""
        return Model(self.config, network, self.algorithm, self.evaluate, quantization=quantization)

    def shown(self, image: np.ndarray) -> np.ndarray:
        """An (H, W, 3) uint8 RGB image as the network is shown it at inference: (1, 3, H', W') float32, normalised."""
        wanted = self.algorithm.input
        return network_input([TASKS[self.algorithm.task].shown(image, self.evaluate, wanted)], wanted)

    def description(self) -> dict[str, Any]:
        """What an exported file must carry to be evaluated alone."""
        return {"format": FORMAT, "model": self.config, "evaluate": self.evaluate.model_dump(mode="json"), "tuned": self.tuned}


def fresh(config: dict[str, Any], evaluate: Evaluate) -> Model:
    """The unpruned architecture with new weights from torch's current seed."""
    algorithm = build(config)
    return Model(config, channels_last(algorithm.network()), algorithm, evaluate)


def channels_last(network: nn.Module) -> nn.Module:
    """The memory layout in which convolutions are fastest, on CPU and GPU alike, with what it needs to train rightly."""
    make_gradients_safe(network)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it


def save(model: Model, folder: Path) -> None:
    """Write `model` into `folder`, but for what was tuned. Each file appears whole or not at all; the description comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(weights_of(model), folder / WEIGHTS)
    if model.quantization:
        write_text(folder / QUANTIZATION, model.quantization)
    description = {name: value for name, value in model.description().items() if name != "tuned"}
    write_text(folder / DESCRIPTION, yaml.safe_dump(description, sort_keys=False))


def weights_of(model: Model) -> dict[str, Tensor]:
    """All weights and statistics, as they are written."""
    from compress.quantization.nncf_torch import plain_state

    state = plain_state(model.network) if model.quantization else model.network.state_dict()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def shipped_bytes(model: Model) -> int:
    """The size of a file of the weights, without parts that are for training alone and never shipped."""
    without = unshipped(model.network)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        write_tensors({name: tensor for name, tensor in weights_of(model).items() if not name.startswith(without)}, path)
        return path.stat().st_size


def load(folder: str | Path) -> Model:
    """The model in `folder`, bit for bit as it was saved.

    Raises CompressError where something is missing, damaged, or belongs to another architecture.
    """
    folder = Path(folder)
    check_whole(folder, (DESCRIPTION, WEIGHTS, QUANTIZATION))
    found = understood(read_description(folder), folder / DESCRIPTION)
    weights = read_tensors(folder / WEIGHTS)
    model = described_model(found, folder / DESCRIPTION)
    model.tuned = read_tuned(folder)
    if model.tuned:
        check_tuned(model.tuned, found.algorithm, found.evaluate, folder / TUNED)
    quantization = folder / QUANTIZATION
    fold_like(model.network, set(weights))
    if quantization.exists():
        from compress.quantization.nncf_torch import restore

        resize(model.network, weights, folder)
        model.quantization = read_text(quantization)
        try:
            model.network = restore(model.network, model.quantization, example_input(model))
        except CompressError as error:
            raise CompressError(f"{quantization}: {error}") from None
    load_weights(model.network, weights, folder)
    check_widths(model, folder)
    return model


def load_untuned(folder: str | Path) -> Model:
    """The same without what `compress eval --tune` has found: stages must not depend on it, since it may change after they were run."""
    found = load(folder)
    found.tuned = {}
    return found


def described_model(found: Described, origin: Path) -> Model:
    """The unpruned model of a description. Raises CompressError where its backbone or neck cannot be built so."""
    try:
        return fresh(found.config, found.evaluate)
    except (TypeError, ValueError) as error:
        raise CompressError(f"{origin} does not describe a model that can be built here: {told(error)}") from None


def read_description(folder: Path) -> dict[str, Any]:
    """`model.yml` of a checkpoint folder."""
    path = folder / DESCRIPTION
    if not path.exists():
        raise CompressError(f"{folder} is not a checkpoint, which has a {DESCRIPTION}, nor a pipeline, which has a {pipeline.DESCRIPTION}.")
    description = read_yaml(path)
    if not isinstance(description, dict) or not {"model", "evaluate"} <= description.keys():
        raise CompressError(f"{path} is damaged: it lacks `model` or `evaluate`; restore it, or run the stage again.")
    if description.get("format") != FORMAT:
        raise CompressError(f"{path} has format {description.get('format')!r}; this version reads format {FORMAT}.")
    return description


def load_weights(network: nn.Module, weights: dict[str, Tensor], origin: Path) -> None:
    """Narrow `network` to the channels that `weights` have, then load them strictly.

    Raises CompressError where names differ (another architecture) or shapes cannot be reached by removing channels.
    """
    expected = network.state_dict()
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        what = f"it lacks {missing[0]}" if missing else f"it has {unknown[0]}, which the architecture has not"
        raise CompressError(
            f"The weights in {origin} belong to another architecture: {what} ({len(missing)} missing, {len(unknown)} unknown in all)."
        )
    broken = next((name for name, tensor in weights.items() if not torch.isfinite(tensor).all()), None)
    if broken:
        raise CompressError(f"The weights in {origin} are not finite: {broken} holds inf or NaN; train again, from a lower lr.")
    resize(network, weights, origin)
    try:
        network.load_state_dict({name: without_subnormals(tensor) for name, tensor in weights.items()}, strict=True)
    except RuntimeError as error:  # a tensor that is no layer's weight has another shape
        told = str(error).splitlines()[-1].strip()
        raise CompressError(f"The weights in {origin} belong to another architecture: {told}") from None


def check_widths(model: Model, origin: Path) -> None:
    """Refuse layers of which one gives another number of channels than the next one takes: run the network once on a small image."""
    model.network.eval()
    try:
        with torch.inference_mode():
            outputs = model.network(example_input(model))
    except (RuntimeError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise CompressError(f"The weights in {origin} do not fit together, layer by layer ({told}); restore them.") from None
    if not all(torch.isfinite(tensor).all() for tensor in outputs.values()):
        raise CompressError(f"The weights in {origin} give values that are not finite; train again, from a lower lr.")


def without_subnormals(tensor: Tensor) -> Tensor:
    """`tensor` with zeros for the floats too small to be normal ones, below 1.2e-38 in float32.

    They are what decay leaves of dead channels, some of PP-OCR's among them. No image shows the difference, but x86 processors compute
    with them several times more slowly.
    """
    if not tensor.is_floating_point():
        return tensor
    return tensor.masked_fill(tensor.abs() < torch.finfo(tensor.dtype).tiny, 0)


def resize(network: nn.Module, weights: dict[str, Tensor], origin: Path) -> None:
    """Give every convolution, transposed convolution, linear layer, embedding, norm and LSTM the width that its saved weight has."""
    for name, module in network.named_modules():
        if isinstance(module, nn.LSTM):
            resize_lstm(name, module, weights, origin)
            continue
        saved = weights.get(f"{name}.weight")
        weight = getattr(module, "weight", None)
        if saved is None or not isinstance(weight, nn.Parameter) or weight.shape == saved.shape:
            continue
        narrower = weight.dim() == saved.dim() and all(0 < new <= old for new, old in zip(saved.shape, weight.shape, strict=True))
        shorter = weight.shape[2:] == saved.shape[2:] or (isinstance(module, nn.Conv2d) and can_be_shortened(module, saved.shape[2:]))
        if not narrower or not shorter:
            raise CompressError(
                f"The weights in {origin} belong to another architecture: {name}.weight is {tuple(saved.shape)} there "
                f"and {tuple(weight.shape)} in the unpruned model."
            )
        resize_layer(module, saved)


def can_be_shortened(layer: nn.Conv2d, kernel: tuple[int, ...]) -> bool:
    """Whether a kernel of that height and width is the middle of the layer's, and what it loses saw padding alone: see stage `simplify`."""
    lost = [old - new for old, new in zip(layer.kernel_size, kernel, strict=True)]
    padding = layer.padding
    return not isinstance(padding, str) and all(less % 2 == 0 and 0 <= less // 2 <= pad for less, pad in zip(lost, padding, strict=True))


def narrow_kernel(layer: Any, shape: Sequence[int]) -> None:
    """Give a convolution an empty weight of `shape` whose kernel is the middle of the layer's, and as much less padding."""
    before = layer.kernel_size
    layer.weight, layer.kernel_size = resized(layer.weight, tuple(shape)), tuple(shape[2:])
    layer.padding = tuple(pad - (old - new) // 2 for pad, old, new in zip(layer.padding, before, layer.kernel_size, strict=True))


def resize_layer(module: Any, saved: Tensor) -> None:
    """Resize one layer in place to the shape of its saved weight; values are left to the loading that follows."""
    if isinstance(module, nn.Conv2d) and saved.shape[2:] != module.weight.shape[2:]:
        narrow_kernel(module, saved.shape)
    else:
        module.weight = resized(module.weight, saved.shape)
    if isinstance(module, nn.ConvTranspose2d):
        module.in_channels, module.out_channels = saved.shape[0], saved.shape[1] * module.groups
        outputs = module.out_channels
    elif isinstance(module, nn.Conv2d):
        if module.groups > 1:  # depthwise: a group per channel, however many are left
            module.groups = saved.shape[0]
        module.in_channels, module.out_channels = saved.shape[1] * module.groups, saved.shape[0]
        outputs = module.out_channels
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = saved.shape
        outputs = module.out_features
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = saved.shape
        outputs = module.num_embeddings
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(saved.shape)
        outputs = saved.shape[0]
    else:
        outputs = module.num_features = saved.shape[0]
    for name in ("bias", "running_mean", "running_var"):
        tensor = getattr(module, name, None)
        if isinstance(tensor, nn.Parameter):
            setattr(module, name, resized(tensor, (outputs,)))
        elif tensor is not None:
            setattr(module, name, tensor.new_empty(outputs))


def resize_lstm(name: str, module: nn.LSTM, weights: dict[str, Tensor], origin: Path) -> None:
    """Resize an LSTM in place to the input and hidden channels of its saved weights, as :func:`resize_layer` does with others."""
    saved = {key: weights[f"{name}.{key}"] for key, _ in module.named_parameters()}
    shapes = [saved[key].shape for key in ("weight_ih_l0", "weight_hh_l0")]
    inputs, hidden = (shape[-1] for shape in shapes)
    if (inputs, hidden) == (module.input_size, module.hidden_size):
        return
    narrower = inputs <= module.input_size and hidden <= module.hidden_size and shapes == [(4 * hidden, inputs), (4 * hidden, hidden)]
    if not narrower:
        raise CompressError(
            f"The weights in {origin} belong to another architecture: the LSTM {name} has {inputs} inputs and {hidden} hidden channels "
            f"there, and {module.input_size} and {module.hidden_size} in the unpruned model."
        )
    module.input_size, module.hidden_size = inputs, hidden
    for key, parameter in list(module.named_parameters()):
        setattr(module, key, resized(parameter, saved[key].shape))


def resized(parameter: nn.Parameter, shape: tuple[int, ...] | torch.Size) -> nn.Parameter:
    """An empty parameter of another shape in the same memory layout."""
    empty = parameter.new_empty(tuple(shape))
    return nn.Parameter(empty.to(memory_format=torch.channels_last) if empty.dim() == 4 else empty, parameter.requires_grad)


def weights_digest(network: nn.Module) -> str:
    """sha256 over the names and values of all weights and statistics."""
    return tensors_digest(network.state_dict())


def example_input(model: Model) -> Tensor:
    """A normalised image of noise, (1, 3, H, W), to trace the network with: small, but no smaller than lines usually are."""
    wanted = model.algorithm.input
    height, width = wanted.example if math.prod(wanted.example) <= SMALL else (4 * step for step in wanted.multiple)
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
