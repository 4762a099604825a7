"""The data formats a recipe can name. A new one is a pydantic model like those here, and a line in the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from compress.data.data_format import DataFormat
from compress.data.detection.cocotext import CocoText
from compress.data.detection.ctw1500 import Ctw1500
from compress.data.detection.icdar2015 import Icdar2015
from compress.data.detection.icdar2017 import Icdar2017
from compress.data.detection.msra_td500 import MsraTd500
from compress.data.detection.paddleocr import PaddleOcr
from compress.data.detection.synthetic import Synthetic
from compress.data.detection.totaltext import TotalText
from compress.data.detection.words_added import WordsAdded
from compress.data.labels import Labels
from compress.data.lines.lines import Lines
from compress.data.lines.lmdb_lines import LmdbLines
from compress.data.lines.synthetic import SyntheticLines
from compress.data.lines.turned import Turned
from compress.data.split import Split
from compress.errors import CompressError, suggestion
from compress.progress import bar

FORMATS: dict[str, type[DataFormat]] = {
    "synthetic": Synthetic,
    "icdar2015": Icdar2015,
    "icdar2017": Icdar2017,
    "totaltext": TotalText,
    "ctw1500": Ctw1500,
    "msra_td500": MsraTd500,
    "paddleocr": PaddleOcr,
    "cocotext": CocoText,
    "words_added": WordsAdded,
    "synthetic_lines": SyntheticLines,
    "lines": Lines,
    "lmdb": LmdbLines,
    "turned": Turned,
    "labels": Labels,
}


def typed(values: object) -> object:
    """A `data` section as its format's class. Raises ValueError for one that no format fits."""
    if not isinstance(values, Mapping):
        return values
    name = values.get("format")
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(f"there is no data format '{name}'{suggestion(str(name), FORMATS)}")
    return FORMATS[name].model_validate(values)


# A field that holds the data of any format of the table.
DataConfig = Annotated[SerializeAsAny[DataFormat], BeforeValidator(typed)]


def given(name: str | None, root: Path | None) -> DataConfig | None:
    """:func:`from_options` of the options --data and --root; None where neither is given. Raises CompressError for a root alone too."""
    if root and not name:
        raise CompressError("--root says where the data of --data are; give both, or change the experiment's own with -o data.root=DIR.")
    return from_options(name, root) if name else None


def from_options(name: str, root: Path | None) -> DataConfig:
    """The format called `name` with its defaults, its data in `root`.

    Raises CompressError for an unknown format, and for one that needs a folder and is given none.
    """
    if name not in FORMATS:
        raise CompressError(f"There is no data format '{name}'{suggestion(name, FORMATS)}")
    fields = FORMATS[name].model_fields
    if "root" in fields and root is None:
        raise CompressError(f"Data of the format {name} lie in a folder; say which with --root DIR.")
    try:
        return FORMATS[name](format=name, **({"root": root} if "root" in fields else {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise CompressError(f"{root or name}: {'.'.join(map(str, first['loc']))}: {first['msg']}; a recipe can say more.") from None


def open_split(config: DataConfig, name: str, seed: int, quiet: bool = False) -> Split:
    """One split of the data, with a bar while images are made or decoded for the first time.

    Raises CompressError for a split that is not there, is damaged, or is empty.
    """
    with bar(f"preparing the {name} images", 0, quiet=quiet) as shown:
        split = config.open(name, seed, shown.reach)
    if not len(split):
        raise CompressError(f"The {name} split of the data is empty; give it images, or another share.")
    return split
