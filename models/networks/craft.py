"""The network and the loss of CRAFT (Baek et al., CVPR 2019): sections 3.1 and 3.2."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from compress.models.backbones.vgg import VGG
from compress.models.layers import conv_bn, initialise
from compress.models.losses import NEGATIVES_PER_POSITIVE, kth_largest

# The ends of the paper's stages 2 to 5 (figure 2), at strides 2, 4, 8 and 16; the last one comes before its ReLU.
TAPS = (12, 19, 29, 38)
TEXT = 0.1  # a pixel is text where its target is above this
LEAST_SHARE = 0.01  # of the other pixels, that counts where a batch has little text or none


class CRAFTNet(nn.Module):
    """VGG-16 with batch norm, two convolutions that see far, four steps up with the finer features beside them, and a head of two maps.

    `forward` takes (B, 3, H, W), H and W multiples of 16, and gives (B, 1, H / 2, W / 2) maps in 0..1: `region`, how near a pixel is to the
    centre of a character, and `affinity`, how near to the centre of the space between two characters of a word. In training also
    `region_scores` and `affinity_scores`, the same before they are clipped to 0..1, which the loss needs.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.backbone = VGG(width, TAPS)
        finest, finer, coarser, coarsest = self.backbone.channels
        far = 2 * coarsest
        # No norm and no ReLU here: fc6 and fc7 of the paper's figure.
        self.context = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(coarsest, far, 3, padding=6, dilation=6), nn.Conv2d(far, far, 1))
        inputs, self.ups = far, nn.ModuleList()
        for skip, outputs in ((coarsest, coarser // 2), (coarser, finer // 2), (finer, finest // 2), (finest, finest // 4)):
            self.ups.append(nn.Sequential(conv_bn(inputs + skip, 2 * outputs), conv_bn(2 * outputs, outputs, 3)))
            inputs = outputs
        last = max(4, inputs // 2)
        self.head = nn.Sequential(
            *(layer for outputs in (inputs, inputs) for layer in (nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))),
            *(nn.Conv2d(inputs, last, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(last, last, 1), nn.ReLU(inplace=True)),
        )
        self.maps = nn.Conv2d(last, 2, 1)
        for part in (self.context, self.ups, self.head, self.maps):
            initialise(part)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        *finer, coarsest = self.backbone(images)
        x = self.ups[0](torch.cat([self.context(coarsest), coarsest], 1))
        for up, skip in zip(self.ups[1:], reversed(finer), strict=True):
            x = up(torch.cat([interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False), skip], 1))
        region, affinity = self.maps(self.head(x)).split(1, 1)
        shown = {"region": region.clamp(0, 1), "affinity": affinity.clamp(0, 1)}
        return {"region_scores": region, "affinity_scores": affinity, **shown} if self.training else shown


def craft_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The squared errors of both maps (equation 3), of all text and of the hardest other pixels, three for each of text (section 4.2).

    outputs: `region_scores` and `affinity_scores` of :class:`CRAFTNet`. targets: the batched maps of
    :func:`compress.models.craft.craft_targets`, of any number type.
    """
    mask = targets["mask"].float()
    parts = {name: mined_error(outputs[f"{name}_scores"].float(), targets[name].float(), mask) for name in ("region", "affinity")}
    return parts["region"] + parts["affinity"], {name: part.detach() for name, part in parts.items()}


def mined_error(scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of a batch's text plus that of its hardest other pixels, without those whose mask is 0. All are (B, 1, H, W)."""
    errors = (scores - target).square()
    text, other = (target > TEXT) * mask, (target <= TEXT) * mask
    wanted = torch.maximum(NEGATIVES_PER_POSITIVE * text.sum(), LEAST_SHARE * other.sum()).minimum(other.sum())
    return (errors * text).sum() / text.sum().clamp(min=1) + mean_of_largest((errors * other).flatten(), int(wanted))


def mean_of_largest(values: Tensor, count: int) -> Tensor:
    """Mean of the `count` largest of (n,) non-negative float32 `values`; 0 for none."""
    if count == 0:
        return values.new_zeros(())
    smallest = kth_largest(values, count)
    larger = values > smallest
    return ((values * larger).sum() + (count - larger.sum()) * smallest) / count
