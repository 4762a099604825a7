"""DetEval (Wolf and Jolion 2006, Object count/area graphs), with the constants and the order of the ICDAR2013 script.

A word may be found by several detections and a detection may find several words: area recall of at least 0.8 and area precision of at
least 0.4 decide; a word found in pieces counts 0.8, words found together count in full. Areas are those of polygons of any length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.evaluation.icdar import TIE, Scene, Score
from compress.evaluation.overlaps import Overlap, overlaps

RECALL, PRECISION = 0.8, 0.4  # t_r and t_p of section 3
SPLIT = 0.8  # credit of a word found in pieces, f_sc(k)
DIGITS = 4  # that sums of shares are rounded to before they are compared


def evaluate(images: Sequence[Scene]) -> Score:
    """Score a split: credits and counts are summed over the images. `matched` is the recall's credit."""
    judged = [judge(seen) for seen in overlaps(images)]
    found, right, detected, words = np.sum(judged, axis=0) if judged else np.zeros(4)
    recall, precision = found / max(words, 1), right / max(detected, 1)
    hmean = 2 * precision * recall / (precision + recall) if found else 0.0
    return Score(float(precision), float(recall), float(hmean), float(found), int(detected), int(words))


def judge(seen: Overlap) -> tuple[float, float, int, int]:
    """The recall's credit, the precision's, and how many detections and words count on one image.

    Do-not-care words, and detections with more than 0.4 of their area on one
    of them, are left out of everything.
    """
    words = ~seen.ignore
    boxes = ~(seen.precision[seen.ignore] > PRECISION + TIE).any(0)
    recall, precision = seen.recall[np.ix_(words, boxes)], seen.precision[np.ix_(words, boxes)]
    meets, covers, inside = recall > TIE, recall >= RECALL - TIE, precision >= PRECISION - TIE

    both = covers & inside
    single = single_in_both(both) & single_in_both(meets) & both & (centre_distances(seen)[np.ix_(words, boxes)] < 1)
    word_free, box_free = ~single.any(1), ~single.any(0)
    found = right = float(single.sum())
    for word in np.flatnonzero(word_free & (meets.sum(1) >= 2)):
        pieces = np.flatnonzero(box_free & inside[word])
        if round(recall[word, pieces].sum(), DIGITS) >= RECALL:
            word_free[word] = box_free[pieces] = False
            credit = 1.0 if len(pieces) == 1 else SPLIT
            found, right = found + credit, right + credit * len(pieces)
    for box in np.flatnonzero(box_free & (meets.sum(0) >= 2)):
        together = np.flatnonzero(word_free & covers[:, box])
        if round(precision[together, box].sum(), DIGITS) >= PRECISION:
            box_free[box] = word_free[together] = False
            found, right = found + len(together), right + 1.0
    return found, right, int(boxes.sum()), int(words.sum())


def single_in_both(pairs: np.ndarray) -> np.ndarray:
    """(n, m) bool: whether the row and the column of a pair have one True each."""
    return (pairs.sum(1) == 1)[:, None] & (pairs.sum(0) == 1)


def centre_distances(seen: Overlap) -> np.ndarray:
    """(words, detections): the distance of the centres of bounding boxes, in means of both boxes' diagonals."""
    words, boxes = seen.shared.shape
    (low, high), (found_low, found_high) = (
        (shapes.low.T[first : first + count], shapes.high.T[first : first + count])
        for shapes, first, count in ((seen.words, seen.first_word, words), (seen.found, seen.first_found, boxes))
    )
    apart = np.linalg.norm((low + high)[:, None] - (found_low + found_high), axis=2) / 2
    diagonals = np.linalg.norm(high - low, axis=1)[:, None] + np.linalg.norm(found_high - found_low, axis=1)
    return 2 * apart / np.maximum(diagonals, TIE)
