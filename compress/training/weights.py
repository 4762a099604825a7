"""Initial weights from outside: a checkpoint of the workbench, or torchvision's ImageNet weights for a backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.checkpoint import Model, load
from compress.cost import unshipped
from compress.errors import CompressError
from compress.files import check_file, read_tensors
from compress.progress import say
from compress.quantization.folding import fold_like
from compress.runtimes.runtime import telling

BACKBONE = "backbone."  # what the names of a backbone's weights begin with, in a checkpoint


def start_from(model: Model, source: str) -> Model:
    """`model` with the weights at `source`: a checkpoint folder, a .safetensors or .pth file, or an https URL of one.

    A file holds the backbone's weights under torchvision's names; what else is in it, the classifier, is left out. Of a file of the
    workbench, a checkpoint's `model.safetensors`, the backbone is taken, whatever algorithm it is of. Raises CompressError where the
    backbone's names or shapes are not all in the file.
    """
    if is_url(source):
        return with_backbone(model, fetch(source))
    path = Path(source)
    if not path.is_dir():
        return with_backbone(model, path)
    return as_in(model, load(path), source)


def as_in(model: Model, loaded: Model, source: str) -> Model:
    """`model` with the weights of `loaded`, and with a guide and centres of its own where that has none, or others.

    source: what `loaded` is called. Raises CompressError for another architecture.
    """
    if architecture(loaded) != architecture(model):
        raise CompressError(f"{source} holds the model {loaded.config}, but the recipe asks for {model.config}; make them the same.")
    if taught_by(loaded) != taught_by(model):
        return beside_its_teachers(model, loaded, source)
    return model.with_network(loaded.network, loaded.quantization)


def is_url(source: str) -> bool:
    """Whether weights are to be fetched."""
    return source.startswith("https://")


def taught_by(model: Model) -> tuple[Any, ...]:
    """What is beside a model in training alone: its guide, as the recipe names it, and where the weights of all such parts lie."""
    return model.config.get("guide"), unshipped(model.network)


def beside_its_teachers(model: Model, loaded: Model, source: str) -> Model:
    """`model` with the weights of `loaded`, but for parts that run in training alone: of these it takes those whose weights have the names
    and shapes of its own, and keeps fresh weights of the others.

    Batch norms that are folded in `loaded`, as in PP-OCRv4's file, are folded then. Raises CompressError where it is pruned or quantized:
    guides and centres are made for the channels of the whole model.
    """
    own, theirs = model.network.state_dict(), loaded.network.state_dict()
    foreign = tuple(part for part in {*unshipped(model.network), *unshipped(loaded.network)} if shapes(own, part) != shapes(theirs, part))
    given = {name: tensor for name, tensor in theirs.items() if not name.startswith(foreign)}
    fold_like(model.network, {*given, *(name for name in own if name.startswith(foreign))})
    own = model.network.state_dict()
    if shapes(given) != {name: shape for name, shape in shapes(own).items() if not name.startswith(foreign)}:
        raise CompressError(
            f"{source} is pruned or quantized, and cannot be given another guide or centres; start from the whole float model."
        )
    model.network.load_state_dict(own | given)
    return model


def shapes(state: Mapping[str, Tensor], part: str = "") -> dict[str, torch.Size]:
    """Name -> shape of the tensors whose names start with `part`."""
    return {name: tensor.shape for name, tensor in state.items() if name.startswith(part)}


@torch.no_grad()
def soften(model: Model, temperature: float) -> None:
    """Divide the logits of the maps by `temperature`, in place: the weights of the layers that give them. 1 changes nothing.

    What a batch norm reads stays as it is: the norm, whose statistics are of that, is divided itself.
    """
    kept = model.algorithm.kept_layers
    last = {name: layer for name, layer in model.network.named_modules() if any(fnmatch(name, pattern) for pattern in kept)}
    norms = {name: layer for name, layer in last.items() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)}
    normed = {beside(name) for name in norms}
    giving = [layer for name, layer in last.items() if name in norms or beside(name) not in normed]
    for parameter in {id(one): one for layer in giving for one in layer.parameters()}.values():
        parameter.div_(temperature)


def beside(name: str) -> str:
    """The module that a layer lies in, by its name."""
    return name.rpartition(".")[0]


def architecture(model: Model) -> dict[str, Any]:
    """The `model` section without the weights of the loss and the guide, which may be others than those that trained a checkpoint."""
    return {key: value for key, value in model.config.items() if key not in ("loss", "guide")}


def with_backbone(model: Model, path: Path) -> Model:
    """Load a file into `model.network.backbone`, strictly but for layers that a backbone has not.

    The backbone of another model of the workbench may end earlier, as CRAFT's does; what is behind its end stays fresh, and is told.
    """
    weights = read_state_dict(path)
    ours = {name.removeprefix(BACKBONE): tensor for name, tensor in weights.items() if name.startswith(BACKBONE)}
    weights = ours or weights
    backbone = model.network.get_submodule("backbone")
    wanted = backbone.state_dict()
    counted = [name for name in wanted if not name.endswith("num_batches_tracked")]
    missing = [name for name in counted if name not in weights]
    shorter = bool(ours) and missing != counted and missing == counted[-len(missing) :]
    if missing and not shorter:
        raise CompressError(f"{path} is not for this backbone: it lacks {missing[0]} ({len(missing)} of {len(wanted)} names missing).")
    kept = {name: weights.get(name, tensor) for name, tensor in wanted.items()}
    wrong = [name for name, tensor in kept.items() if tensor.shape != wanted[name].shape]
    if wrong:
        raise CompressError(
            f"{path} is not for this backbone: {wrong[0]} is {tuple(kept[wrong[0]].shape)} there, not {tuple(wanted[wrong[0]].shape)}."
        )
    if missing:
        say(f"The backbone of {path} ends before {missing[0]}: what is behind starts fresh.")
    backbone.load_state_dict(kept)
    return model


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Named tensors from .safetensors, or from a .pth file by torch's restricted reader, which builds tensors and nothing else."""
    if not path.exists():
        raise CompressError(f"There are no weights at {path}; give a checkpoint folder, a .safetensors or .pth file, or an https URL.")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    check_file(path, "file of weights")
    with telling(f"{path} cannot be read as weights alone; fetch it again"):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CompressError(f"{path} does not hold a mapping from names to tensors.")
    return loaded


def fetch(url: str) -> Path:
    """Download once into the cache folder."""
    folder = Path(os.environ.get("COMPRESS_CACHE", Path.home() / ".cache" / "compress")) / "weights"
    path = folder / url.rsplit("/", 1)[-1]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), progress=True)
        except OSError as error:
            raise CompressError(f"{url} cannot be fetched ({error}); download it elsewhere and give its path.") from None
    return path
