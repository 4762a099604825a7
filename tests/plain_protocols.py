"""The protocols as plain loops with shapely, one pair of polygons after another, and images to try them on."""

from __future__ import annotations

import math

import numpy as np
import shapely

from compress.evaluation import cleval


def box(left: float, top: float, width: float, height: float) -> np.ndarray:
    return np.array([(left, top), (left + width, top), (left + width, top + height), (left, top + height)], float)


def arc(centre: tuple[float, float], radius: float, thick: float, corners: int = 6) -> np.ndarray:
    """A word along the upper half of a circle, 2 * corners points."""
    turns = np.linspace(math.pi * 0.85, math.pi * 0.15, corners)
    way = np.stack([np.cos(turns), -np.sin(turns)], 1)
    return np.concatenate([centre + (radius + thick) * way, centre + radius * way[::-1]])


def random_images(count: int, seed: int) -> list:
    """Words, straight and curved, with detections on them, on parts of them and over several; some do-not-care."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        words, found = [], []
        for _ in range(rng.integers(0, 6)):
            where, size = rng.uniform(0, 150, 2), rng.uniform(10, 60, 2)
            words.append(np.rint(box(*where, 2 * size[0], size[1]) if rng.random() < 0.6 else arc(tuple(where), size[0], size[1] / 2)))
        for word in words:
            kind = rng.random()
            (left, top), (right, bottom) = word.min(0), word.max(0)
            if kind < 0.4:
                found.append(word + rng.normal(0, 2, word.shape))
            elif kind < 0.6:
                middle = rng.uniform(left, right)
                found += [box(left, top, middle - left - 1, bottom - top), box(middle, top, right - middle, bottom - top)]
            elif kind < 0.8:
                found.append(box(left - 3, top - 3, (right - left) * rng.uniform(0.5, 3), bottom - top + 6))
        found += [box(*rng.uniform(0, 200, 2), *rng.uniform(5, 60, 2)) for _ in range(rng.integers(0, 3))]
        texts = ["word"[: rng.integers(0, 5)] * rng.integers(1, 3) for _ in words]
        images.append((found, words, list(rng.random(len(words)) < 0.25), texts))
    return images


def geometry(polygon: np.ndarray) -> shapely.Geometry:
    return shapely.make_valid(shapely.Polygon(polygon))


def plain_polygon_iou(found: list, words: list, ignore: list) -> tuple[int, int, int]:
    """Matched, detected and words of one image; words in order take the first detection that fits."""
    shapes, truth = [geometry(polygon) for polygon in found], [geometry(polygon) for polygon in words]
    dropped = {j for j, b in enumerate(shapes) for g, skip in zip(truth, ignore, strict=True) if skip and (b & g).area > b.area / 2}
    taken: set[int] = set()
    for word, skip in zip(truth, ignore, strict=True):
        fits = (j for j, b in enumerate(shapes) if j not in dropped | taken and (b & word).area / (b | word).area > 0.5)
        taken |= set() if skip else {j for j in [next(fits, None)] if j is not None}
    return len(taken), len(shapes) - len(dropped), len(ignore) - sum(ignore)


def plain_deteval(found: list, words: list, ignore: list) -> tuple[float, float, int, int]:
    """The ICDAR2013 script's loops, on polygons."""
    words_all = [geometry(polygon) for polygon in words]
    hidden = [word for word, skip in zip(words_all, ignore, strict=True) if skip]
    judged = [(d, p) for d, p in zip(map(geometry, found), found, strict=True) if not any((d & w).area / d.area > 0.4 for w in hidden)]
    dets, dets_of = [d for d, _ in judged], [p for _, p in judged]
    gts = [w for w, skip in zip(words_all, ignore, strict=True) if not skip]
    gts_of = [p for p, skip in zip(words, ignore, strict=True) if not skip]
    n, m = len(gts), len(dets)
    recall = [[(g & d).area / g.area for d in dets] for g in gts]
    precision = [[(g & d).area / d.area for d in dets] for g in gts]
    touch = [[r > 1e-9 for r in row] for row in recall]
    gt_hit, det_hit, found_credit, right = [False] * n, [False] * m, 0.0, 0.0

    def good(i: int, j: int) -> bool:
        return recall[i][j] >= 0.8 and precision[i][j] >= 0.4

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        low_a, high_a, low_b, high_b = a.min(0), a.max(0), b.min(0), b.max(0)
        diagonals = math.dist(low_a, high_a) + math.dist(low_b, high_b)
        return 2 * math.dist((low_a + high_a) / 2, (low_b + high_b) / 2) / diagonals

    for i in range(n):
        for j in range(m):
            only = sum(good(i, k) for k in range(m)) == 1 and sum(good(k, j) for k in range(n)) == 1 and good(i, j)
            alone = sum(touch[i]) == 1 and sum(row[j] for row in touch) == 1
            if only and alone and distance(gts_of[i], dets_of[j]) < 1:
                gt_hit[i] = det_hit[j] = True
                found_credit, right = found_credit + 1, right + 1
    for i in range(n):
        pieces = [j for j in range(m) if not gt_hit[i] and not det_hit[j] and precision[i][j] >= 0.4]
        if round(sum(recall[i][j] for j in pieces), 4) >= 0.8 and sum(touch[i]) >= 2:
            gt_hit[i] = True
            for j in pieces:
                det_hit[j] = True
            found_credit += 1 if len(pieces) == 1 else 0.8
            right += 1 if len(pieces) == 1 else 0.8 * len(pieces)
    for j in range(m):
        inside = [i for i in range(n) if not gt_hit[i] and not det_hit[j] and recall[i][j] >= 0.8]
        if round(sum(precision[i][j] for i in inside), 4) >= 0.4 and sum(row[j] for row in touch) >= 2:
            det_hit[j] = True
            for i in inside:
                gt_hit[i] = True
            found_credit, right = found_credit + len(inside), right + 1
    return found_credit, right, m, n


def plain_cleval(found: list, words: list, ignore: list, texts: list) -> tuple[int, int, int, int, int]:
    """The authors' steps, one after another."""
    lengths = [len(t) if t and not skip else cleval.guessed_length(w) for t, w, skip in zip(texts, words, ignore, strict=True)]
    points = [[shapely.Point(p) for p in cleval.centres(w, length)] for w, length in zip(words, lengths, strict=True)]
    dets, gts = [geometry(p) for p in found], [geometry(p) for p in words]
    for i, skip in enumerate(ignore):
        for k in range(len(gts)) if skip else ():
            if not ignore[k]:
                gts[i] = gts[i] - gts[k]
    share = [[(g & d).area / d.area for d in dets] for g in gts]
    inside = [[[d.contains(p) for p in of] for d in dets] for of in points]
    n, m = len(gts), len(dets)
    dropped = set()
    for j in range(m):
        hidden = [i for i in range(n) if ignore[i]]
        if any(share[i][j] >= 0.3 for i in hidden) or sum(share[i][j] for i in hidden if any(inside[i][j])) >= 0.3:
            dropped.add(j)
    valid_gts, valid_dets = [i for i in range(n) if not ignore[i]], [j for j in range(m) if j not in dropped]

    def both(i: int, j: int) -> bool:
        return share[i][j] >= 0.3 and any(inside[i][j])

    match = set()
    for i in valid_gts:
        for j in valid_dets:
            if both(i, j) and sum(both(i, k) for k in range(m)) == 1 and sum(both(k, j) for k in range(n)) == 1:
                match.add((i, j))
        many = [j for j in valid_dets if both(i, j)]
        match |= {(i, j) for j in many} if len(many) >= 2 else set()
    for j in valid_dets:
        many = [i for i in valid_gts if any(inside[i][j])]
        match |= {(i, j) for i in many} if len(many) >= 2 and sum(share[i][j] for i in many) >= 0.3 else set()
    seen = {(i, k) for i, j in match for k, hit in enumerate(inside[i][j]) if hit}
    total = sum(sum(inside[i][j]) for i, j in match)
    strays = sum(cleval.guessed_length(found[j]) for j in valid_dets if all(other != j for _, other in match))
    cuts = sum(max(sum(i == word for i, _ in match) - 1, 0) for word in range(n))
    joins = sum(max(sum(j == det for _, j in match) - 1, 0) for det in range(m))
    return len(seen), cuts, joins, total + strays, sum(lengths[i] for i in valid_gts)
