"""The same validation pictures by every artefact of an experiment: those on which the first row and the last differ the most."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from compress.data.cache import cache_folder
from compress.errors import CompressError
from compress.files import fingerprint, read_json, write_json
from compress.ledger import Row
from compress.outside import ALLOWED
from compress.recipe import load
from compress.report.collect import Experiment
from compress.report.findings import distinct

if TYPE_CHECKING:
    from compress.data.split import Annotation, Split
    from compress.evaluation.detector import Detector
    from compress.evaluation.icdar import Score
    from compress.evaluation.settings import Evaluate, Protocol
    from compress.models.contract import Sample

WEIGHTS = "model.safetensors"  # as compress.checkpoint has it, which would import torch
LAYOUT = 2  # of what `compare` returns, and so of what is kept
LONGEST = 640  # pixels, the longer side of an embedded picture


def compare(experiment: Experiment, images: int) -> dict[str, Any]:
    """Detections of every artefact on the `images` worst-changed validation pictures, kept so that a second call runs no network.

    Returns `notes`, one sentence for each artefact left out and for what else is missing, and `pictures`: each with its `name`, `width`
    and `height` in its own pixels, `jpeg` (base64), `truth` (polygons), `ignore`, and `found`: stage -> `polygons` and `score`
    (the fields of `compress.evaluation.icdar.Score` for this picture, by the recipe's protocol). Polygons are lists of [x, y].
    """
    rows = distinct(experiment.rows)
    digests = {row.stage: digest(experiment.folder / row.artefact) for row in rows}
    kept = cache_folder() / "report" / f"{fingerprint([LAYOUT, images, experiment.recipe, digests, sorted(ALLOWED.get())])}.json"
    known = read_json(kept)
    if known is None:
        try:
            known = compared(experiment, rows, images)
        except CompressError as error:
            return {"notes": [f"There are no detections here: {error}"], "pictures": []}
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, known)
    return known


def digest(artefact: Path) -> str | None:
    """sha256 of an artefact's weights; None where they are missing."""
    files = {".xml": [artefact, artefact.with_suffix(".bin")], "": [artefact / WEIGHTS]}.get(artefact.suffix, [artefact])
    if not all(file.is_file() for file in files):
        return None
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def compared(experiment: Experiment, rows: Sequence[Row], images: int) -> dict[str, Any]:
    """:func:`compare` without looking for what it found before.

    Only the first and the last artefact see the whole split; the others see the chosen pictures.
    """
    from compress.data.formats import open_split

    if not experiment.recipe:
        raise CompressError(f"{experiment.folder} has no recipe.yml, which says what data to detect words on.")
    recipe = load(experiment.folder / "recipe.yml")
    detectors, notes = open_all(experiment, rows)
    if len(detectors) < 2:
        raise CompressError("it takes two artefacts to compare. " + " ".join(notes))
    split = open_split(recipe.data, "val", recipe.seed)
    first, *_, last = detectors
    protocol = recipe.evaluate.protocol
    before, after = (
        hmeans(scores(detections(detectors[stage], recipe.evaluate, split), split.annotations, protocol)) for stage in (first, last)
    )
    samples = [split[index] for index in most_changed(before, after, images)]
    found = {stage: detections(detector, recipe.evaluate, samples) for stage, detector in detectors.items()}
    judged = {stage: scores(polygons, samples, protocol) for stage, polygons in found.items()}
    pictures = [
        picture(sample, {stage: (found[stage][place], judged[stage][place]) for stage in detectors}) for place, sample in enumerate(samples)
    ]
    notes.insert(
        0, f"Pictures of the validation split on which {first} and {last} differ the most, of {len(split)}, by protocol {protocol}."
    )
    return {"notes": notes, "pictures": pictures}


def open_all(experiment: Experiment, rows: Sequence[Row]) -> tuple[dict[str, Detector], list[str]]:
    """Stage -> detector, of those that open, and in sentences why the others are left out."""
    from compress.evaluation.detector import open_detector

    missing = [row.stage for row in rows if digest(experiment.folder / row.artefact) is None]
    notes = [f"Left out, as their weights are not there: {', '.join(missing)}."] if missing else []
    detectors = {}
    for row in rows:
        if row.stage not in missing:
            try:
                detectors[row.stage] = open_detector(experiment.folder / row.artefact)
            except CompressError as error:
                notes.append(f"{row.stage} is left out: {error}")
    return detectors, notes


def detections(detector: Detector, settings: Evaluate, samples: Split | Sequence[Sample]) -> list[list[np.ndarray]]:
    """Polygons on each picture, by the recipe's input size and thresholds."""
    from compress.evaluation.detector import detect

    seen = detect(detector.shown_as(settings), samples)
    return [detector.decode(maps, sample.image.shape[:2], settings).polygons for sample, maps in seen]


def scores(found: Sequence[Sequence[np.ndarray]], truth: Sequence[Annotation | Sample], protocol: Protocol) -> list[Score]:
    """Every picture's own score."""
    from compress.evaluation.protocols import evaluate

    return [evaluate([(seen, at.polygons, at.ignore, at.texts)], protocol) for seen, at in zip(found, truth, strict=True)]


def hmeans(scores: Sequence[Score]) -> np.ndarray:
    """Hmean of each picture, 0..1; 1 where there is no word and none was found."""
    return np.array([score.hmean if score.detected or score.words else 1.0 for score in scores])


def most_changed(before: np.ndarray, after: np.ndarray, images: int) -> list[int]:
    """Indices of the pictures whose Hmean changed the most, either way; of equal ones a loss before a gain, then the earlier."""
    change = after - before
    order = sorted(range(len(change)), key=lambda index: (-round(abs(change[index]), 9), change[index], index))
    return order[:images]


def picture(sample: Sample, found: dict[str, tuple[Sequence[np.ndarray], Score]]) -> dict[str, Any]:
    """One picture with what was found on it, as plain values."""
    height, width = sample.image.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    small = cv2.resize(sample.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else sample.image
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return {
        "name": sample.name,
        "width": width,
        "height": height,
        "jpeg": base64.b64encode(data.tobytes()).decode(),
        "truth": plain(sample.polygons),
        "ignore": [bool(flag) for flag in sample.ignore],
        "found": {stage: {"polygons": plain(polygons), "score": asdict(score)} for stage, (polygons, score) in found.items()},
    }


def plain(polygons: Sequence[np.ndarray]) -> list[list[list[float]]]:
    """Polygons to a tenth of a pixel."""
    return [np.round(np.asarray(polygon, np.float64), 1).tolist() for polygon in polygons]
