"""Random views of a training image: one affine matrix, one warp straight to the crop's size, one colour matrix, blur and noise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from compress.data.pixels import blurred, hues_turned, noisy, tinted, with_contrast
from compress.models.contract import Sample, Words

SLACK = 1.0  # pixels a word may stick out of the crop and still count as whole


class Augment(BaseModel):
    """What may happen to a training image. The defaults are those of the published DB runs: crops of 640, ICDAR2015.

    scales: factors on the image's size, one of which is drawn.
    cover: the factor is raised until the image's short side is this many times the crop's; below 1 a black border can show.
    min_side: the factor is lowered until the crop covers this share of the image's short side.
    rotate: largest angle, in degrees, either way.
    flip: probability of mirroring left to right.
    tries: places tried for the crop. The first that holds a whole word and cuts none is taken, else the one that cuts fewest.
    brightness: largest relative change of brightness. saturation: largest relative change of saturation.
    contrast: largest relative change of contrast. hue: largest turn of the hues, in degrees, either way; 180 is any.
    invert: share of the views that are negatives.
    noise: largest standard deviation of the noise, in grey levels. blur: largest standard deviation of the blur, in pixels of the view.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scales: tuple[Annotated[float, Field(ge=0.05, le=20)], ...] = Field(default=(0.5, 1.0, 2.0, 3.0), min_length=1)
    cover: float = Field(default=650 / 640, ge=0.1, le=4)
    min_side: float = Field(default=0.1, gt=0, le=1)
    rotate: float = Field(default=10.0, ge=0, le=180)
    flip: float = Field(default=0.5, ge=0, le=1)
    tries: int = Field(default=10, ge=1, le=1000)
    brightness: float = Field(default=32 / 255, ge=0, lt=1)
    saturation: float = Field(default=0.5, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, lt=1)
    hue: float = Field(default=0.0, ge=0, le=180)
    invert: float = Field(default=0.0, ge=0, le=1)
    noise: float = Field(default=0.0, ge=0, le=70)
    blur: float = Field(default=0.0, ge=0, le=10)


def augment(sample: Sample, config: Augment, crop: int, rng: np.random.Generator) -> Sample:
    """A random view of `sample`, exactly (crop, crop, 3) uint8, and of its maps, (C, crop, crop) uint8.

    Polygons go through the same matrix as the pixels. Words outside of the crop are dropped; what is left of a word that the
    crop's border cuts becomes do-not-care, clipped to the crop.
    """
    height, width = sample.image.shape[:2]
    scale = choose_scale(config, min(height, width), crop, rng)
    matrix = turn(width, height, scale, math.radians(rng.uniform(-config.rotate, config.rotate)), rng.random() < config.flip)
    polygons = transformed(sample.truth.polygons, matrix)
    # Whole pixels, so that a crop alone does not blur.
    corner = choose_corner(polygons, sample.truth.ignore, (width * scale, height * scale), crop, config.tries, rng).round()
    matrix[:, 2] -= corner
    image = warp(sample.image, matrix, scale, jitter(config, rng), crop)
    image = noisy(blurred(image, config.blur * rng.random()), config.noise * rng.random(), rng)
    offset = corner.astype(np.float32)
    maps = {name: warp_maps(channels, (height, width), matrix, scale, crop) for name, channels in sample.maps.items()}
    return replace(keep_visible(sample, image, [polygon - offset for polygon in polygons], crop), maps=maps)


def choose_scale(config: Augment, short: int, crop: int, rng: np.random.Generator) -> float:
    scale = config.scales[rng.integers(len(config.scales))]
    scale = min(scale, crop / (config.min_side * short))
    return max(scale, config.cover * crop / short)


def turn(width: int, height: int, scale: float, angle: float, flip: bool) -> np.ndarray:
    """(2, 3) matrix that scales the image to (width * scale, height * scale), turns it about its centre and mirrors it there."""
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    if flip:
        linear[0] *= -1
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    target = np.array([(width * scale - 1) / 2, (height * scale - 1) / 2])
    return np.column_stack([linear, target - linear @ centre])


def transformed(polygons: list[np.ndarray], matrix: np.ndarray) -> list[np.ndarray]:
    if not polygons:
        return []
    points = np.concatenate(polygons) @ matrix[:, :2].T + matrix[:, 2]
    return np.split(points.astype(np.float32), np.cumsum([len(polygon) for polygon in polygons])[:-1])


def choose_corner(
    polygons: list[np.ndarray], ignore: np.ndarray, size: tuple[float, float], crop: int, tries: int, rng: np.random.Generator
) -> np.ndarray:
    """(x, y) of the crop's top left corner in the turned image.

    Every try is drawn around one of the words that count; an image without such words gets any place within its frame.
    """
    room = np.array(size) - crop
    least, most = np.minimum(room, 0), np.maximum(room, 0)
    wanted = [polygon for polygon, skip in zip(polygons, ignore, strict=True) if not skip]
    if not wanted:
        return rng.uniform(least, most)
    low = np.array([polygon.min(axis=0) for polygon in wanted], np.float64)
    high = np.array([polygon.max(axis=0) for polygon in wanted], np.float64)

    chosen = rng.integers(len(wanted), size=tries)
    first, last = high[chosen] - crop + 1, low[chosen]
    first, last = np.minimum(first, last), np.maximum(first, last)
    first, last = np.clip(first, least, most), np.clip(last, least, most)
    corners = first + (last - first) * rng.random((tries, 2))

    near, far = corners[:, None], corners[:, None] + (crop - 1)
    touched = ((high > near) & (low < far)).all(axis=2)
    whole = ((low >= near - SLACK) & (high <= far + SLACK)).all(axis=2)
    cuts = (touched & ~whole).sum(axis=1) + len(wanted) * ~np.any(whole, axis=1)
    return corners[cuts.argmin()]


def warp_maps(maps: np.ndarray, size: tuple[int, int], matrix: np.ndarray, scale: float, crop: int) -> np.ndarray:
    """The crops, (C, crop, crop), of (C, h, w) uint8 maps that cover an image of `size`, whose pixels `matrix` places; 0 around it."""
    steps = np.array(size[::-1]) / maps.shape[:0:-1]  # pixels of the image to one of the maps
    linear = matrix[:, :2] * steps
    # From the centres of the maps' pixels to those of the image's.
    placed = np.column_stack([linear, matrix[:, 2] + matrix[:, :2] @ ((steps - 1) / 2)])
    return np.stack([warp(channel, placed, scale * math.sqrt(steps.prod()), None, crop) for channel in maps])


def warp(image: np.ndarray, matrix: np.ndarray, scale: float, colours: np.ndarray | None, crop: int) -> np.ndarray:
    """The crop at the origin of the matrix's target, black where there is no image, its colours then mixed by the (3, 4) `colours`."""
    linear, shift = matrix[:, :2], matrix[:, 2]
    if scale < 0.5:  # bilinear sampling would skip pixels: average whole blocks of them first
        block = int(1 / scale)
        height, width = image.shape[0] // block * block, image.shape[1] // block * block
        image = cv2.resize(image[:height, :width], (width // block, height // block), interpolation=cv2.INTER_AREA)
        matrix = np.column_stack([linear * block, shift + linear.sum(axis=1) * (block - 1) / 2])
    elif scale >= 2:  # half the size still samples every pixel of the image, and enlarging costs a third of warping
        half = -(-crop // 2)
        small = warp(image, np.column_stack([linear / 2, shift / 2 - 0.25]), scale / 2, colours, half)
        return np.ascontiguousarray(cv2.resize(small, (2 * half, 2 * half), interpolation=cv2.INTER_LINEAR)[:crop, :crop])
    placed = cv2.warpAffine(image, matrix, (crop, crop), flags=cv2.INTER_LINEAR)
    return placed if colours is None else cv2.transform(placed, colours)


def jitter(config: Augment, rng: np.random.Generator) -> np.ndarray:
    """All that is linear in the colours of a pixel, as one (3, 4) matrix."""
    matrix = tinted(config.brightness, config.saturation, rng)
    matrix = hues_turned(math.radians(config.hue * rng.uniform(-1, 1))) @ matrix
    return with_contrast(matrix, 1 + config.contrast * rng.uniform(-1, 1), negative=bool(rng.random() < config.invert))


def keep_visible(sample: Sample, image: np.ndarray, polygons: list[np.ndarray], crop: int) -> Sample:
    """The sample with `image` and those of its words, now at `polygons`, that are on it."""
    last = crop - 1
    kept, ignore, texts = [], [], []
    for polygon, skip, text in zip(polygons, sample.truth.ignore, sample.truth.texts or [""] * len(polygons), strict=True):
        (left, top), (right, bottom) = polygon.min(axis=0), polygon.max(axis=0)
        if right <= 0 or bottom <= 0 or left >= last or top >= last:
            continue
        whole = left >= -SLACK and top >= -SLACK and right <= last + SLACK and bottom <= last + SLACK
        polygon = polygon.clip(0, last) if whole else clip(polygon, last)
        if len(polygon) >= 3:
            kept.append(polygon)
            ignore.append(bool(skip) or not whole)
            texts.append(text)
    return Sample(sample.name, image, Words(kept, np.array(ignore, bool), texts))


def clip(polygon: np.ndarray, last: float) -> np.ndarray:
    """The part of the polygon inside the square 0..last (Sutherland and Hodgman 1974); (0, 2) where there is none."""
    points = polygon.astype(float).tolist()
    for axis, limit, sign in ((0, 0.0, 1), (1, 0.0, 1), (0, last, -1), (1, last, -1)):
        inside = []
        for start, end in zip(points[-1:] + points[:-1], points, strict=True):
            before, after = sign * (start[axis] - limit), sign * (end[axis] - limit)
            if (before >= 0) != (after >= 0):
                share = before / (before - after)
                inside.append([start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])])
            if after >= 0:
                inside.append(end)
        points = inside
    return np.array(points, np.float32).reshape(-1, 2).clip(0, last)
