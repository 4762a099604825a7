"""The data formats a recipe can name. A new one is a pydantic model like those here, and its name in the union and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from compress.data.detection.cocotext import CocoText
from compress.data.detection.ctw1500 import Ctw1500
from compress.data.detection.icdar2015 import Icdar2015
from compress.data.detection.msra_td500 import MsraTd500
from compress.data.detection.paddleocr import PaddleOcr
from compress.data.detection.synthetic import Synthetic
from compress.data.detection.totaltext import TotalText
from compress.data.split import Split
from compress.errors import CompressError, suggestion
from compress.progress import bar

DataConfig = Annotated[Synthetic | Icdar2015 | TotalText | Ctw1500 | MsraTd500 | PaddleOcr | CocoText, Field(discriminator="format")]
FORMATS = {
    "synthetic": Synthetic,
    "icdar2015": Icdar2015,
    "totaltext": TotalText,
    "ctw1500": Ctw1500,
    "msra_td500": MsraTd500,
    "paddleocr": PaddleOcr,
    "cocotext": CocoText,
}


def from_options(name: str, root: Path | None) -> DataConfig:
    """The format called `name` with its defaults, its data in `root`.

    Raises CompressError for an unknown format, and for one that needs a folder and is given none.
    """
    if name not in FORMATS:
        raise CompressError(f"There is no data format '{name}'{suggestion(name, FORMATS)}")
    if "root" not in FORMATS[name].model_fields:
        return FORMATS[name](format=name)
    if root is None:
        raise CompressError(f"Data of the format {name} lie in a folder; say which with --root DIR.")
    try:
        return FORMATS[name](format=name, root=root)
    except ValidationError as error:
        raise CompressError(f"{root}: {error.errors()[0]['msg']}") from None


def open_split(config: DataConfig, name: str, seed: int, quiet: bool = False) -> Split:
    """One split of the data, with a bar while pictures are drawn or decoded for the first time.

    Raises CompressError for a split that is not there, is damaged, or is empty.
    """
    with bar(f"preparing the {name} pictures", 0, quiet=quiet) as shown:
        split = config.open(name, seed, shown.reach)
    if not len(split):
        raise CompressError(f"The {name} split of the data is empty; give it pictures, or another share.")
    return split
