"""Images in, answers out: drawn, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import cv2

from compress.data.images import read_image
from compress.errors import CompressError
from compress.files import write_json
from compress.predictor import open_predictor
from compress.runtimes import FILES


def predict_files(images: Sequence[Path], model: Path | None, out: Path, device: str) -> Iterator[str]:
    """For each image write `<out>/<stem>.json`, and `<out>/<stem>.png` with the answer drawn; yields one line each.

    model: a checkpoint folder or an exported file; None is the detector that comes with the package. All images are read before any
    work. Raises CompressError for an image that is missing or does not decode.
    """
    opened = [read_image(path) for path in images]
    predictor = open_predictor(model or default_model(), device=device)
    task = predictor.task
    out.mkdir(parents=True, exist_ok=True)
    for path, image in zip(images, opened, strict=True):
        found, drawn = predictor.predict(image), out / f"{path.stem}.png"
        cv2.imwrite(str(drawn), cv2.cvtColor(task.drawn(image, found), cv2.COLOR_RGB2BGR))
        size = {"height": image.shape[0], "width": image.shape[1]}
        write_json(out / f"{path.stem}.json", {"image": str(path), **size, **task.record(found)})
        yield f"{path}: {task.told(found)}, {drawn}"


def default_model() -> Path:
    """The exported file in the package's folder `default_model`, which may hold one of any format that `compress.runtimes` opens.

    Raises CompressError where there is none, or more than one.
    """
    folder = Path(str(files("compress") / "default_model"))
    found = [path for path in folder.glob("*") if path.suffix in FILES]
    if len(found) != 1:
        raise CompressError(f"There should be one model in {folder}, not {len(found)}; install the package again, or give --model.")
    return found[0]
