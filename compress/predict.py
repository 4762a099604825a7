"""Pictures in, polygons out, drawn and as JSON; from a classifier, classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from compress.errors import CompressError
from compress.evaluation.detector import open_model
from compress.files import write_json
from compress.models.contract import Classification, Detections
from compress.report.draw import draw
from compress.runtimes import FILES


def predict_files(images: Sequence[Path], model: Path | None, out: Path, device: str) -> Iterator[str]:
    """For each picture write `<out>/<stem>.json`, and `<out>/<stem>.png` where words were found; yields one line each.

    model: a checkpoint folder or an exported file; None is the detector that comes with the package. All pictures are read before any
    work. Raises CompressError for a picture that is missing or does not decode.
    """
    from compress.processes import device_name

    pictures = [read_picture(path) for path in images]
    detector = open_model(model or default_model(), device=device_name(device))
    kept = {"detection": keep_words, "classification": keep_class}[detector.algorithm.task]
    out.mkdir(parents=True, exist_ok=True)
    for path, image in zip(images, pictures, strict=True):
        record, told = kept(detector.predict(image), image, out / f"{path.stem}.png")
        write_json(out / f"{path.stem}.json", {"image": str(path), "height": image.shape[0], "width": image.shape[1], **record})
        yield f"{path}: {told}"


def keep_words(found: Detections, image: np.ndarray, drawn: Path) -> tuple[dict[str, Any], str]:
    """What goes into the JSON file, and what is said; the words are drawn at `drawn`."""
    cv2.imwrite(str(drawn), cv2.cvtColor(draw(image, found), cv2.COLOR_RGB2BGR))
    words = [
        {"polygon": np.round(polygon, 2).tolist(), "score": round(float(score), 4)}
        for polygon, score in zip(found.polygons, found.scores, strict=True)
    ]
    return {"words": words}, f"{len(words)} words, {drawn}"


def keep_class(found: Classification, _image: np.ndarray, _drawn: Path) -> tuple[dict[str, Any], str]:
    """The same for a picture as a whole; nothing is drawn."""
    return {"label": found.label, "score": round(found.score, 4)}, f"{found.label}, probability {found.score:.4f}"


def default_model() -> Path:
    """The exported file in the package's folder `default_model`, which may hold one of any format that `compress.runtimes` opens.

    Raises CompressError where there is none, or more than one.
    """
    folder = Path(str(files("compress") / "default_model"))
    found = [path for path in folder.glob("*") if path.suffix in FILES]
    if len(found) != 1:
        raise CompressError(f"There should be one model in {folder}, not {len(found)}; install the package again, or give --model.")
    return found[0]


def read_picture(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB."""
    if not path.exists():
        raise CompressError(f"There is no picture at {path}.")
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
    if image is None:
        raise CompressError(f"{path} does not decode as a picture; it is damaged, or of a kind that OpenCV does not read.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
