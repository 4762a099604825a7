"""Names of CRAFT's layers in its authors' code. Exports have the batch norms folded into the convolutions before them."""

from __future__ import annotations

from compress.converters.names import Pair

# VGG's convolutions, by their places in torchvision's list, in the four slices that the authors make of it.
SLICES = {"slice1": (0, 3, 7, 10), "slice2": (14, 17), "slice3": (20, 24, 27), "slice4": (30, 34, 37)}


def craft_layers() -> list[Pair]:
    """All convolutions."""
    vgg = [Pair(f"backbone.features.{place}", f"basenet.{part}.{place}") for part, places in SLICES.items() for place in places]
    context = [Pair(f"context.{place}", f"basenet.slice5.{place}") for place in (1, 2)]
    ups = [Pair(f"ups.{i}.{half}.0", f"upconv{i + 1}.conv.{place}") for i in range(4) for half, place in enumerate((0, 3))]
    head = [Pair(f"head.{place}", f"conv_cls.{place}") for place in (0, 2, 4, 6)]
    return [*vgg, *context, *ups, *head, Pair("maps", "conv_cls.8")]
