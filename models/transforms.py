"""What a recogniser may do to a line before its backbone sees it: nothing, or straighten it by a thin plate spline.

The spline is that of RARE (Shi et al. 2016, "Robust Scene Text Recognition with Automatic Rectification", section 3.1): a small network
says where points of the upper and of the lower edge of the text are, and the image is bent so that they come to lie on its own edges.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from compress.models.contract import Width
from compress.models.layers import conv_bn, initialise

Fiducials = Annotated[int, Field(ge=6, le=100, multiple_of=2)]
SMALLEST = 1e-12  # squared distance, so that a point has a logarithm where it is a fiducial one


class ThinPlateSpline(nn.Module):
    """(B, 3, H, W) lines to straightened ones of the same size.

    `locate` and `hidden` look at the whole line, `offsets` says how far each fiducial point is from its place on the edge, in halves of
    the image's sides: x and y by turns, those of the upper edge first, from left to right.
    """

    edges: Tensor
    solution: Tensor

    def __init__(self, fiducials: int, channels: int, hidden: int) -> None:
        super().__init__()
        widths = [channels * factor for factor in (1, 2, 4, 8)]
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *widths), widths, strict=False):
            layers += [conv_bn(inputs, outputs, 3), nn.MaxPool2d(2)]
        self.locate = nn.Sequential(*layers[:-1])
        self.hidden = nn.Linear(widths[-1], hidden)
        self.offsets = nn.Linear(hidden, 2 * fiducials)
        initialise(self)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)
        edges = on_edges(fiducials)
        self.register_buffer("edges", edges.float(), persistent=False)
        self.register_buffer("solution", spline_solution(edges).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.locate(images).mean((2, 3))
        offsets = self.offsets(torch.relu(self.hidden(features)))
        with torch.autocast(images.device.type, enabled=False):  # half a pixel of 320 is more than what bfloat16 can tell apart
            height, width = images.shape[2:]
            points = pixel_centres(height, width, images)
            spline = spline_basis(points, self.edges) @ self.solution
            moved = points + spline @ offsets.float().reshape(offsets.shape[0], -1, 2)
            return grid_sample(images, moved.reshape(-1, height, width, 2), padding_mode="border", align_corners=False)


def on_edges(fiducials: int) -> Tensor:
    """(fiducials, 2) float64 x and y of points at equal distances on the upper (y = -1) and then the lower edge (y = 1) of an image."""
    across = torch.linspace(-1, 1, fiducials // 2, dtype=torch.float64)
    return torch.cat([torch.stack([across, torch.full_like(across, y)], 1) for y in (-1.0, 1.0)])


def pixel_centres(height: int, width: int, like: Tensor) -> Tensor:
    """(height * width, 2) x and y of the pixels, row by row, where the image reaches from -1 to 1."""
    y, x = ((2 * torch.arange(size, device=like.device) + 1).to(like.dtype) / size - 1 for size in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], 2).reshape(-1, 2)


def spline_basis(points: Tensor, fiducials: Tensor) -> Tensor:
    """(n, fiducials + 3): r^2 log r^2 of each point's distance r to each fiducial point, then 1, x and y."""
    squared = (points[:, None] - fiducials).square().sum(2)
    return torch.cat([squared * (squared + SMALLEST).log(), torch.ones_like(points[:, :1]), points], 1)


def spline_solution(fiducials: Tensor) -> Tensor:
    """(fiducials + 3, fiducials): times offsets at the fiducial points, the coefficients of the spline that has them there.

    The bending of that spline is the smallest there is (Bookstein 1989, "Principal Warps", section E).
    """
    count = len(fiducials)
    basis = spline_basis(fiducials, fiducials)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    system[:count] = basis
    system[count:, :count] = basis[:, count:].T
    return torch.linalg.inv(system)[:, :count]


def none() -> nn.Identity:
    """The line as it is."""
    return nn.Identity()


def tps(fiducials: Fiducials = 20, channels: Width = 16, hidden: Width = 64) -> ThinPlateSpline:
    """As in rec_mv3_tps_bilstm_ctc; with a ResNet 64 `channels` and 256 `hidden`, as in rec_r34_vd_tps_bilstm_ctc.

    channels: of the first of four convolutions that locate the text, each twice as wide as the one before. hidden: of a linear layer.
    """
    return ThinPlateSpline(fiducials, channels, hidden)
