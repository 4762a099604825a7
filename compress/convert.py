"""`compress convert`: another framework's weights as a checkpoint, once both models have given the same maps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress.checkpoint import DESCRIPTION, QUANTIZATION, WEIGHTS, Model, check_widths, fresh, load_weights, save
from compress.converters.dictionary import dictionary_of
from compress.converters.families import FAMILIES
from compress.converters.folded_norms import take_statistics, with_norms
from compress.converters.names import TORCH_SLOPE, Family, Pair, Tensors
from compress.converters.onnx_graph import Graph, read_onnx
from compress.converters.pdparams import read_pdparams
from compress.data.prepare import network_input, resize_short_side
from compress.errors import CompressError, suggestion, told_apart
from compress.files import check_file, digest_said
from compress.models.alphabet import written_as
from compress.outputs import check_folder
from compress.outside import build
from compress.quantization.folding import fold_like
from compress.tasks import TASKS

TOLERANCE = 1e-4  # of the largest difference between two maps in 0..1
OTHER_FORMS = {nn.BatchNorm2d: "norm", nn.LayerNorm: "layernorm", nn.Linear: "linear"}
PARAMETERS = {"weight": "weight", "scale": "scale", "bias": "bias", "running_mean": "_mean", "running_var": "_variance"}


@dataclass(frozen=True)
class Converted:
    """A model with another framework's weights.

    unused: what of the file went nowhere. fresh: our layers that the file has not, which start from others of it.
    differences: map -> largest and mean absolute difference on the images; empty where a file holds weights alone.
    private: entry of a dictionary -> the character that stands for it.
    """

    family: Family
    model: Model
    unused: list[str]
    fresh: list[str]
    differences: dict[str, tuple[float, float]]
    private: dict[str, str] = field(default_factory=dict)


def convert_file(
    path: Path, out: Path, images: Sequence[Path] = (), part: str | None = None, dictionary: Path | None = None
) -> Iterator[str]:
    """Convert and compare, write the checkpoint folder `out`; yields lines that say what was done.

    images: those to compare on, synthetic ones where none are given. part: which of several models in a .pdparams file.
    dictionary: of a recogniser, where the file does not say it, see :func:`compress.converters.dictionary.dictionary_of`.
    Raises CompressError, and writes nothing, where the file is not understood or the maps differ by more than `TOLERANCE`.
    """
    from compress.data.detection.synthetic import draw
    from compress.data.images import read_images

    check_folder(out)
    for name in (DESCRIPTION, WEIGHTS, QUANTIZATION):
        # Weights alone that the workbench has written are what a conversion that was cut off has left.
        cut_off = name == WEIGHTS and digest_said(out / name) is not None
        if os.path.lexists(out / name) and not cut_off:
            raise CompressError(f"{out} holds a {name} already; remove it, or give another folder.")
    compared = read_images(images) or [draw(0, "val", index, 320)[1] for index in range(3)]
    converted = convert(path, compared, part, dictionary)
    save(converted.model, out)
    yield from told(path, out, converted)


def convert(path: Path, images: Sequence[np.ndarray], part: str | None = None, dictionary: Path | None = None) -> Converted:
    """The model in an .onnx or .pdparams file, compared on (H, W, 3) uint8 RGB images where the file can be run."""
    if not path.exists():
        raise CompressError(f"There is no file {path}.")
    check_file(path, "file of a model")
    if path.suffix == ".onnx":
        if part:
            raise CompressError(f"{path} holds one model; --part is for .pdparams files with several.")
        converted, source = from_graph(path, dictionary)
        if converted.family.folded:
            wanted = converted.model.algorithm.input
            shown = (resize_short_side(image, min(image.shape[:2]), wanted.multiple) for image in images)
            take_statistics(converted.model.network, (torch.from_numpy(network_input([image], wanted)) for image in shown))
        differences = compare(path, source, converted, images)
        return replace(converted, differences=differences)
    if path.suffix == ".pdparams":
        return from_parameters(path, part)
    raise CompressError(f"{path} is neither an .onnx nor a .pdparams file; give one of PP-OCR's.")


def from_graph(path: Path, dictionary: Path | None = None) -> tuple[Converted, str]:
    """The model of an exported graph, and the name of the graph's input."""
    graph = read_onnx(path)
    family, model = recognise(graph, path)
    stands_for: dict[str, str] = {}
    if model.algorithm.alphabet is not None:
        alphabet, stands_for = dictionary_of(path, graph.metadata, len(graph.layers[-1].tensors["weight"]), dictionary)
        model = fresh_model(replace(family, config={**family.config, "alphabet": written_as(alphabet)}))
    elif dictionary is not None:
        raise CompressError(f"{path} holds the {family.title}, which reads no characters; leave --dictionary out.")
    pairs = family.pairs[: len(graph.layers)]
    weights = {
        f"{pair.ours}.{name}": array for pair, layer in zip(pairs, graph.layers, strict=True) for name, array in layer.tensors.items()
    }
    if family.folded:
        weights = with_norms(model.network, weights)
    return replace(filled(family, model, weights, graph.unused, path), private=stands_for), graph.source


def recognise(graph: Graph, path: Path) -> tuple[Family, Model]:
    """The family whose layers are of the same kinds, kernels and strides in the same order, and a fresh model of it."""
    found = [layer.form for layer in graph.layers]
    for family in FAMILIES:
        required = [pair for pair in family.pairs if not optional(pair.ours)]
        for pairs in (family.pairs, required):
            if len(found) == len(pairs) and found == forms(pairs, (model := fresh_model(family)).network):
                return family, model
    nearest = min(FAMILIES, key=lambda family: abs(len(family.pairs) - len(found)))
    expected = forms(nearest.pairs, fresh_model(nearest).network)
    agreed = next((i for i, (ours, theirs) in enumerate(zip(expected, found, strict=False)) if ours != theirs), len(found))
    raise CompressError(
        f"{path} holds an architecture of {len(found)} layers that is not known here; the nearest is the {nearest.title}, "
        f"with which its first {agreed} layers agree. Known are: {', '.join(family.title for family in FAMILIES)}."
    )


def fresh_model(family: Family) -> Model:
    """The family's model with weights that are the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = dict(family.config)
        return fresh(config, TASKS[build(config).task].evaluate(**family.evaluate))


def forms(pairs: Sequence[Pair], network: nn.Module) -> list[tuple]:
    """What :class:`compress.converters.onnx_graph.Layer` calls the form, of our layers in the order of `pairs`."""
    return [form(network.get_submodule(pair.ours)) for pair in pairs]


def form(layer: nn.Module) -> tuple:
    """The form of one layer."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return ("deconv" if isinstance(layer, nn.ConvTranspose2d) else "conv", layer.kernel_size, layer.stride, layer.groups > 1)
    return (next((kind for known, kind in OTHER_FORMS.items() if isinstance(layer, known)), "scale"),)


def optional(name: str) -> bool:
    """Whether a file for inference may lack the layer: the branch that only training looks at."""
    return name.startswith("threshold.")


def from_parameters(path: Path, part: str | None) -> Converted:
    """The model of a file of parameters, which cannot be run."""
    tensors = of_part(read_pdparams(path), part, path)
    for family in FAMILIES:
        prepared = family.prepare(tensors)
        if all(present(pair, prepared) for pair in family.pairs if not optional(pair.ours)):
            model = fresh_model(family)
            if fits(family, model.network, prepared):
                weights, used = renamed(family, model.network, prepared, path)
                return filled(family, model, weights, sorted(prepared.keys() - used), path)
    raise CompressError(
        f"{path} holds {len(tensors)} arrays of an architecture that is not known here, the first of them {next(iter(tensors), None)!r}. "
        f"Known are: {', '.join(family.title for family in FAMILIES)}."
    )


def of_part(tensors: Tensors, part: str | None, path: Path) -> Tensors:
    """The tensors of one of several models, such as `Student`, that were trained together; all of them where there is one."""
    parts = sorted({name.split(".")[0] for name in tensors if name.split(".")[1:2] == ["backbone"]})
    if not parts:
        if part:
            raise CompressError(f"{path} holds one model; leave --part out.")
        return tensors
    if part is None and len(parts) > 1:
        raise CompressError(f"{path} holds {len(parts)} models: {', '.join(parts)}; choose one with --part.")
    chosen = part or parts[0]
    if chosen not in parts:
        raise CompressError(f"{path} has no part '{chosen}'{suggestion(chosen, parts)}")
    return {name.removeprefix(f"{chosen}."): array for name, array in tensors.items() if name.startswith(f"{chosen}.")}


def fits(family: Family, network: nn.Module, tensors: Tensors) -> bool:
    """Whether every kernel has our size, by which a 7x7 head is told from a 3x3 one."""
    state = network.state_dict()
    names = [(f"{pair.ours}.weight", f"{pair.theirs}.weight") for pair in family.pairs]
    return all(state[ours].shape[2:] == tensors[theirs].shape[2:] for ours, theirs in names if theirs in tensors)


def present(pair: Pair, tensors: Tensors) -> bool:
    """Whether a file of parameters has the layer."""
    return f"{pair.theirs}.weight" in tensors or f"{pair.theirs}.scale" in tensors


def renamed(family: Family, network: nn.Module, tensors: Tensors, path: Path) -> tuple[Tensors, set[str]]:
    """Our names and layouts for Paddle's tensors, and the names of those that were taken."""
    state, weights, used = network.state_dict(), {}, set()
    for pair in family.pairs:
        if not present(pair, tensors):  # which only the optional ones may be
            continue
        linear = isinstance(network.get_submodule(pair.ours), nn.Linear)
        for ours, theirs in PARAMETERS.items():
            name = f"{pair.theirs}.{theirs}"
            if name in tensors:
                array = tensors[name].T if linear and ours == "weight" else tensors[name]
                weights[f"{pair.ours}.{ours}"] = (array * (pair.slope / TORCH_SLOPE)).astype(np.float32)
                used.add(name)
            elif f"{pair.ours}.{ours}" in state:
                raise CompressError(f"{path} lacks {name}, which the {family.title} has; it is damaged.")
    return weights, used


def filled(family: Family, model: Model, weights: Tensors, unused: list[str], path: Path) -> Converted:
    """`model` with `weights`, strictly but for the branch that inference does not need. Where the file lacks it, it starts as a copy of the
    probability's, so that its norms fit the features, with a last layer of zeros: a threshold of one half everywhere.
    """
    if not family.rgb:
        first = f"{family.pairs[0].ours}.weight"
        weights = {**weights, first: weights[first][:, ::-1]}
    state = {name: torch.from_numpy(np.array(array, np.float32, order="C")) for name, array in weights.items()}
    missing = threshold_from_probability(model.network, state)
    state |= missing
    counters = [name for name in model.network.state_dict() if name.endswith("num_batches_tracked")]
    fold_like(model.network, set(state))  # layers whose batch norm is merged into them
    state.update({name: torch.zeros((), dtype=torch.long) for name in counters if name in model.network.state_dict()})
    load_weights(model.network, state, path)
    check_widths(model, path)
    model.network.eval()
    return Converted(family, model, unused, list(missing), {})


def threshold_from_probability(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The threshold branch where `state` lacks it, by name."""
    if any(optional(name) for name in state):
        return {}
    layers = {name for name, _ in network.named_modules() if optional(name)}
    found = {}
    for name, tensor in state.items():
        ours = name.replace("probability.", "threshold.")
        if ours.rpartition(".")[0] in layers:
            found[ours] = torch.zeros_like(tensor) if ours.startswith("threshold.up2.") else tensor.clone()
    return found


def compare(path: Path, source: str, converted: Converted, images: Sequence[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Largest and mean absolute difference between the maps of ONNX Runtime and ours, each fed as its own framework feeds it.

    Raises CompressError where one is above `TOLERANCE` or not finite.
    """
    theirs, ours = runner_of_file(path, source), runner_of_model(converted.model)
    names, found = converted.family.maps, dict[str, list[np.ndarray]]()
    wanted = converted.model.algorithm.input
    order = 1 if converted.family.rgb else -1
    asked = replace(wanted, mean=wanted.mean[::order], std=wanted.std[::order])
    for image in images:
        shown = (
            line_of(image, converted.model) if converted.family.lines else resize_short_side(image, min(image.shape[:2]), wanted.multiple)
        )
        expected = theirs(network_input([shown[..., ::order]], asked))
        given = ours(network_input([shown], wanted))
        # An exported detector may give all maps of training as channels; the binary map follows from the other two, 50 times as steep.
        channels = [expected] if converted.family.lines else np.split(expected, expected.shape[1], axis=1)
        for name, values in zip(names, channels, strict=False):
            if name != "binary":
                if name not in given or values.shape != given[name].shape:
                    raise CompressError(
                        f"{path} gives a map of {values.shape} where ours are {[ours.shape for ours in given.values()]}; "
                        "it is another architecture."
                    )
                found.setdefault(name, []).append(np.abs(values - given[name]).ravel())
    differences = {name: (float(np.max(np.concatenate(parts))), float(np.mean(np.concatenate(parts)))) for name, parts in found.items()}
    for name, (largest, mean) in differences.items():
        if not largest <= TOLERANCE:
            raise CompressError(
                f"{path} was taken for the {converted.family.title}, but map '{name}' differs by up to {told_apart(largest, TOLERANCE)} "
                f"(mean {mean:.3g}) on {len(images)} images, and {TOLERANCE:g} is allowed; no checkpoint was written."
            )
    return differences


def line_of(image: np.ndarray, model: Model) -> np.ndarray:
    """An (H, W, 3) image as the line that the model is shown."""
    return TASKS[model.algorithm.task].shown(image, model.evaluate, model.algorithm.input)


def runner_of_file(path: Path, source: str) -> Callable[[np.ndarray], np.ndarray]:
    """The first output of an ONNX file for (1, 3, H, W) float32 images."""
    from compress.runtimes.onnxruntime import open_session, session_options
    from compress.runtimes.runtime import available_threads, telling

    session = open_session(path, session_options(available_threads(None)))

    def run(images: np.ndarray) -> np.ndarray:
        with telling(f"{path} does not run on images of {' x '.join(map(str, images.shape))}; it is another architecture, or damaged"):
            return np.asarray(session.run(None, {source: images})[0], np.float32)

    return run


def runner_of_model(model: Model) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    """All maps of ours for (1, 3, H, W) float32 images."""
    from compress.training.modes import show_all_maps

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        show_all_maps(model.network)
        with torch.inference_mode():
            outputs: Mapping[str, Tensor] = model.network(torch.from_numpy(images))
        model.network.eval()
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return run


def told(path: Path, out: Path, converted: Converted) -> Iterator[str]:
    """What was done, a line at a time."""
    parameters = dict(converted.model.network.named_parameters())
    count = sum(parameter.numel() for name, parameter in parameters.items() if name not in converted.fresh)
    yield f"{path}: {converted.family.title}, {count:,} parameters"
    if converted.fresh:
        added = sum(parameters[name].numel() for name in converted.fresh if name in parameters)
        branch = converted.fresh[0].split(".")[0]
        told = "which starts as a copy of the probability's; it is trained, not exported"
        yield f"not in the file: the {branch} branch, {added:,} parameters, {told}"
    yield f"in the file, and not used: {', '.join(converted.unused) or 'nothing'}"
    if converted.private:
        pairs = ", ".join(f"{entry} as U+{ord(character):04X}" for entry, character in converted.private.items())
        yield f"of several code points, and read as one: {pairs}"
    for name, (largest, mean) in converted.differences.items():
        yield f"map '{name}': largest difference {largest:.2e}, mean {mean:.2e}"
    if not converted.differences:
        yield "not compared: the file holds weights alone and cannot be run; convert its ONNX export to have it compared"
    yield f"checkpoint: {out}"
