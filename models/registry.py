"""A name and its keywords -> an algorithm. Holds the only list of what there is.

torch is imported by the modules that build, never by this one, so that a recipe can be read and listed without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from compress.models.contract import Algorithm
from compress.models.wording import suggestion

# Name -> module; the factory in that module has the same name.
MODELS = {
    name: f"compress.models.{name}" for name in ("angle", "craft", "crnn", "db", "nrtr", "pan", "psenet", "sar", "sast", "svtr_lcnet")
}
# Those that are put together of others, and have no network of their own.
ASSEMBLED = {"reader": "compress.models.reader"}
BACKBONES = {
    "lcnet": "compress.models.backbones.lcnet",
    "lcnet_v3": "compress.models.backbones.lcnet_v3",
    "lcnet_v4_small": "compress.models.backbones.lcnet_v4",
    "lcnet_v4_tiny": "compress.models.backbones.lcnet_v4",
    "mobilenet_v3_large": "compress.models.backbones.mobilenet_v3",
    "mobilenet_v3_large_ppocr": "compress.models.backbones.mobilenet_v3_ppocr",
    "mobilenet_v3_small": "compress.models.backbones.mobilenet_v3",
    "mobilenet_v3_small_torchvision": "compress.models.backbones.mobilenet_v3",
    "pphgnet_small": "compress.models.backbones.pphgnet",
    "resnet18": "compress.models.backbones.resnet",
    "resnet18_vd": "compress.models.backbones.resnet",
    "resnet34": "compress.models.backbones.resnet",
    "resnet50": "compress.models.backbones.resnet",
    "resnet50_vd": "compress.models.backbones.resnet",
    "vgg16_bn": "compress.models.backbones.vgg",
}
NECKS = {
    "cab_fpn": "compress.models.necks.cab_fpn",
    "fpem_ffm": "compress.models.necks.fpem_ffm",
    "fpn_asf": "compress.models.necks.asf",
    **dict.fromkeys(("fpn", "db_fpn", "rse_fpn", "separable_rse_fpn", "lkpan"), "compress.models.necks.fpn"),
}
# Of these a step is eight pixels wide, and a line 48 high: its features are one row then. PP-OCR's recognisers since version 3 have them.
LINES_OF_48 = {
    "lcnet_v3_lines": "compress.models.backbones.lcnet_v3",
    "lcnet_v4_lines_small": "compress.models.backbones.lcnet_v4",
    "lcnet_v4_lines_tiny": "compress.models.backbones.lcnet_v4",
    "mobilenet_v1_enhance": "compress.models.backbones.mobilenet_v1_enhance",
    "pphgnet_small_lines": "compress.models.backbones.pphgnet",
}
# Those of recognisers keep most of a line's width. Names are those of detectors where the architecture is the same but for its strides.
LINE_BACKBONES = {
    "mobilenet_v1_enhance_v2": "compress.models.backbones.lines",
    "mobilenet_v3_large": "compress.models.backbones.lines",
    "mobilenet_v3_small": "compress.models.backbones.lines",
    "resnet31": "compress.models.backbones.lines",
    "resnet34": "compress.models.backbones.lines",
    "resnet34_vd": "compress.models.backbones.lines",
    **LINES_OF_48,
}
SEQUENCES = {
    "bilstm": "compress.models.sequences.bilstm",
    "none": "compress.models.sequences.none",
    **dict.fromkeys(("light_svtr", "separable", "svtr"), "compress.models.sequences.svtr"),
}
TRANSFORMS = dict.fromkeys(("none", "tps"), "compress.models.transforms")
HEADS = dict.fromkeys(("attention", "conv_ctc", "ctc"), "compress.models.heads")
SAR_BACKBONES = {"resnet31": "compress.models.backbones.resnet31"}  # of maps, not of columns
GUIDES = dict.fromkeys(("none", "nrtr", "sar"), "compress.models.guides")
# Key of a model's section -> what it may name, of detectors and of recognisers.
PARTS = {"backbone": BACKBONES, "neck": NECKS}
LINE_PARTS = {"transform": TRANSFORMS, "backbone": LINE_BACKBONES, "sequence": SEQUENCES, "head": HEADS, "guide": GUIDES}
# Name of a model -> its own parts, where they are not `PARTS`.
PARTS_OF = {"crnn": LINE_PARTS, "nrtr": {}, "sar": {"backbone": SAR_BACKBONES}, "svtr_lcnet": LINE_PARTS}


def build(config: str | Mapping[str, Any]) -> Algorithm:
    """The algorithm that the `model` section of a recipe asks for: `{name: db, ...keywords}`, or a name alone. Imports no torch.

    Raises ValueError, naming the place, for unknown names and keywords and for wrong types and ranges; keywords of a backbone and a neck
    are looked at by :func:`check_parts`, and when the network is built. Nothing outside the tables above is ever imported: `model.yml`
    may come from anybody.
    """
    return configured({**MODELS, **ASSEMBLED}, config, "model")()


def check_parts(config: str | Mapping[str, Any]) -> None:
    """Refuse a `model` section of :func:`build` whose backbone or neck does not have the keywords that it is given.

    Imports torch; where that is not installed, no network is built either, and nothing is refused. Raises ValueError, naming the place,
    for unknown keywords and for wrong types and ranges.
    """
    if not isinstance(config, Mapping) or config.get("name") not in MODELS:
        return
    parts = PARTS_OF.get(config["name"], PARTS)
    try:
        for part in parts.keys() & config.keys():
            configured(parts[part], config[part], f"model.{part}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise


def line_multiple(backbone: str) -> tuple[int, int]:
    """Of what the height and the width of a line, in pixels, are multiples for one of `LINE_BACKBONES`; the width is that of a step."""
    return (48, 8) if backbone in LINES_OF_48 else (16, 4)


def of_network(model: str, name: str, *arguments: Any, **keywords: Any) -> Any:
    """What `name` of `compress.models.networks.<model>` gives for the arguments.

    An algorithm holds its network and its loss as a `partial` of this function: torch is imported when they are called, and not where an
    exported file is opened or an algorithm is sent to another process.
    """
    return getattr(import_module(f"compress.models.networks.{model}"), name)(*arguments, **keywords)


def named(table: Mapping[str, str], config: str | Mapping[str, Any], place: str) -> dict[str, Any]:
    """`config`, a name or a mapping with a `name`, as a mapping. Raises ValueError for a name that is no key of `table`.

    place: where `config` stands in the recipe, for messages.
    """
    keywords = {"name": config} if isinstance(config, str) else dict(config) if isinstance(config, Mapping) else {}
    name = keywords.get("name")
    if not isinstance(name, str):
        raise ValueError(f"{place} must be a name or a mapping with a `name`; known are {', '.join(sorted(table))}.")
    if name not in table:
        raise ValueError(f"{place}: '{name}' is not known{suggestion(name, table)}")
    return keywords


def configured(table: Mapping[str, str], config: str | Mapping[str, Any], place: str) -> Callable[..., Any]:
    """The factory that `config` names, a key of `table`, with its keywords filled in; see :func:`named`."""
    keywords = named(table, config, place)
    name = keywords.pop("name")
    return checked(getattr(import_module(table[name]), name), keywords, place)


def checked(factory: Callable[..., Any], keywords: Mapping[str, Any], place: str) -> Callable[..., Any]:
    """`factory` with `keywords` filled in, after they were held against its annotations. Annotated ranges count.

    A keyword is a parameter that has a default: what has none is for the caller to give.
    """
    parameters = inspect.signature(factory).parameters.values()
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    known = [parameter.name for parameter in parameters if parameter.default is not parameter.empty]
    hints = get_type_hints(factory, include_extras=True)
    for name, value in keywords.items():
        if name not in known and not open_ended:
            raise ValueError(f"{place}.{name} is not known{suggestion(name, known)}")
        try:
            adapter(hints.get(name, Any)).validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]["msg"]
            raise ValueError(f"{place}.{name}: {first[0].lower()}{first[1:]}, not {value!r}.") from None
    return partial(factory, **keywords)


def adapter(hint: Any) -> TypeAdapter[Any]:
    """The strict check of one annotation: True is no number, "3" is no number, and neither is infinity."""
    return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True))
