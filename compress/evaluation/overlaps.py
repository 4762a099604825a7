"""Areas that the words and the detections of an image share, for the protocols that look at more than one pair at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from compress.errors import CompressError
from compress.evaluation.icdar import Scene, Shapes, in_parts, intersections, joined, overlapping_boxes, pairs, shapes


@dataclass(frozen=True)
class Overlap:
    """One image. shared: (words, detections) areas. words, found: shapes, from `first_word` and `first_found` on, of all images.

    ignore: (words,) bool. word_areas: (words,). found_areas: (detections,).
    """

    shared: np.ndarray
    ignore: np.ndarray
    word_areas: np.ndarray
    found_areas: np.ndarray
    words: Shapes
    found: Shapes
    first_word: int
    first_found: int

    @property
    def recall(self) -> np.ndarray:
        """(words, detections): the share of the word that the detection covers; 0 for a word without area."""
        return self.shared / np.where(self.word_areas > 0, self.word_areas, np.inf)[:, None]

    @property
    def precision(self) -> np.ndarray:
        """(words, detections): the share of the detection that is on the word; 0 for a detection without area."""
        return self.shared / np.where(self.found_areas > 0, self.found_areas, np.inf)


def overlaps(images: Sequence[Scene]) -> Iterator[Overlap]:
    """The overlaps of each image, in order; the pairs of many images are clipped in one batch."""
    for some in in_parts(images):
        yield from overlaps_of(some)


def overlaps_of(images: Sequence[Scene]) -> list[Overlap]:
    """:func:`overlaps` of images that fit into memory together."""
    found = shapes(*joined([polygon for image in images for polygon in image[0]]))
    words = shapes(*joined([polygon for image in images for polygon in image[1]]))
    ignored = np.array([flag for image in images for flag in image[2]], bool)
    if len(ignored) != len(words.areas):
        raise CompressError(f"The ground truth has {len(words.areas)} polygons but {len(ignored)} do-not-care flags.")
    found_counts, word_counts = ([len(image[part]) for image in images] for part in (0, 1))
    found_starts, word_starts = (np.cumsum([0, *counts]) for counts in (found_counts, word_counts))
    sizes = np.array(word_counts, int) * np.array(found_counts, int)
    image_of_word, image_of_found = (np.repeat(np.arange(len(images)), counts) for counts in (word_counts, found_counts))

    word, box, _ = overlapping_boxes(words, found, *pairs(image_of_word, image_of_found))
    starts = np.cumsum([0, *sizes])
    flat = np.zeros(starts[-1])
    image = image_of_word[word]
    place = starts[image] + (word - word_starts[image]) * np.array(found_counts, int)[image] + box - found_starts[image]
    flat[place] = intersections(words, word, found, box)
    return [
        Overlap(
            flat[starts[index] : starts[index + 1]].reshape(word_counts[index], found_counts[index]),
            ignored[word_starts[index] : word_starts[index + 1]],
            words.areas[word_starts[index] : word_starts[index + 1]],
            found.areas[found_starts[index] : found_starts[index + 1]],
            words,
            found,
            int(word_starts[index]),
            int(found_starts[index]),
        )
        for index in range(len(images))
    ]
