"""The data formats a recipe can name. A new one is a pydantic model like those here, and its name in the union."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from compress.data.icdar2015 import Icdar2015
from compress.data.synthetic import Synthetic

DataConfig = Annotated[Synthetic | Icdar2015, Field(discriminator="format")]
