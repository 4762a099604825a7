"""Fewer classes: rows of the layers that score characters, and of what looks characters up."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from compress.checkpoint import Model, resized
from compress.errors import CompressError
from compress.models.alphabet import Alphabet

CLASSIFIERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm2d)


def keep_classes(model: Model, alphabet: Alphabet, kept: Sequence[int]) -> None:
    """Take the classes of all characters but `kept` out of `model.network`, in place.

    alphabet: that of the network. The blank stays, and start, end and unknown of attention decoders. Classifiers are those of the layers
    that give the outputs which have as many outputs as there are classes. Raises CompressError where there is none.
    """
    places = {
        alphabet.ctc_classes: [alphabet.blank, *kept],
        alphabet.attention_classes: [alphabet.blank, *kept, alphabet.start, alphabet.end, alphabet.unknown],
    }
    found = False
    for name, layer in model.network.named_modules():
        gives_output = any(fnmatchcase(part, pattern) for pattern in model.algorithm.kept_layers for part in enclosing(name))
        if (isinstance(layer, CLASSIFIERS) and gives_output) or isinstance(layer, nn.Embedding):
            rows = places.get(len(layer.weight))
            if rows is not None:
                keep_rows(layer, rows)
                found = True
    if not found:
        raise CompressError("the model has no layer with an output for each character; its characters cannot be cut down.")


def enclosing(name: str) -> list[str]:
    """The name of a module and those of all modules around it."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


@torch.no_grad()
def keep_rows(layer: Any, rows: Sequence[int]) -> None:
    """Keep some outputs of a layer, in place."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        values = getattr(layer, name, None)
        if values is not None:
            chosen = values[list(rows)]
            setattr(layer, name, resized(values, chosen.shape).copy_(chosen) if isinstance(values, nn.Parameter) else chosen)
    size = {nn.Linear: "out_features", nn.Embedding: "num_embeddings", nn.BatchNorm2d: "num_features"}.get(type(layer), "out_channels")
    setattr(layer, size, len(rows))
