"""The nine kinds of stage, one file each."""

from __future__ import annotations

from compress.stages.alphabet import KeepCharacters
from compress.stages.assemble import Assemble
from compress.stages.distill import Distill
from compress.stages.export import Export
from compress.stages.load import Load
from compress.stages.prune import Prune
from compress.stages.quantize import Quantize
from compress.stages.simplify import Simplify
from compress.stages.stage import Expect, Stage
from compress.stages.train import Train

KINDS: dict[str, type[Stage]] = {
    stage.kind: stage for stage in (Load, Train, KeepCharacters, Simplify, Prune, Distill, Quantize, Export, Assemble)
}

__all__ = ["KINDS", "Expect", "Stage"]
