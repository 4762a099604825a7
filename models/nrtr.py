"""NRTR (Sheng et al. 2019, "NRTR: A No-Recurrence Sequence-to-Sequence Model For Scene Text Recognition"): a Transformer that reads the
columns of a line.

Targets and decoding are in `compress.models.attention`, the network in `compress.models.networks.nrtr`.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import Field

from compress.models.alphabet import Written, alphabet_of
from compress.models.attention import Longest, Smoothing, attention_recogniser
from compress.models.contract import Algorithm, Deviation, Input, Mean
from compress.models.registry import of_network

STRIDE = 4  # pixels of width for a column
Layers = Annotated[int, Field(ge=1, le=24)]
Heads = Annotated[int, Field(ge=1, le=64)]
Dims = Annotated[int, Field(ge=2, le=2048, multiple_of=2)]
Hidden = Annotated[int, Field(ge=1, le=8192)]
Height = Annotated[int, Field(ge=16, le=256, multiple_of=16)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


def nrtr(
    height: Height = 48,
    dims: Dims = 512,
    heads: Heads = 8,
    hidden: Hidden = 2048,
    encoder_layers: Layers = 6,
    decoder_layers: Layers = 6,
    dropout: Dropout = 0.1,
    longest: Longest = 25,
    smoothing: Smoothing = 0.1,
    alphabet: Written = "en",
    mean: Mean = (0.5, 0.5, 0.5),
    std: Deviation = (0.5, 0.5, 0.5),
) -> Algorithm:
    """NRTR as an :class:`Algorithm` of task "recognition".

    height: of every line, in pixels; 32 in the paper. dims: channels of a step, a multiple of the `heads`. hidden: channels between the two
    linear layers of a block. dropout: share of what each block adds that is left out in training. longest: characters of the longest
    text it can give; longer ones are no part of the loss. smoothing: of labels, in the loss. alphabet: as for
    :func:`compress.models.alphabet.alphabet_of`. mean, std: of R, G and B, of images in 0..1, which are not grey as in the paper.
    Raises ValueError for unknown keywords and for wrong values.
    """
    check_heads(dims, heads, "model")
    characters = alphabet_of(alphabet)
    sizes = (dims, heads, hidden, encoder_layers, decoder_layers, dropout)
    network = partial(of_network, "nrtr", "nrtr_network", characters.attention_classes, longest + 1, height // STRIDE, *sizes)
    wanted = Input((height, STRIDE), (height, 320), tuple(mean), tuple(std))
    return attention_recogniser(network, characters, wanted, longest, smoothing)


def check_heads(dims: int, heads: int, place: str) -> None:
    """Raises ValueError for channels that cannot be shared out among heads."""
    if dims % heads:
        raise ValueError(f"{place}.dims: {dims} channels cannot be shared out among {heads} heads; make them a multiple.")
