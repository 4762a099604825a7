"""Which layers suffer from integers: each is quantized alone, all others computing in float.

All quantizers are put in and calibrated once; for each layer its own are switched on. The first sweep over all layers compares outputs with
the float network's; for the layers that it finds most sensitive the scores are measured too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress.checkpoint import Model, example_input, weights_digest
from compress.data.split import Split, evenly
from compress.errors import CompressError
from compress.files import fingerprint, remembered, write_json
from compress.lab import Lab
from compress.models.contract import Sample
from compress.predictor import Outputs, of_model, score, seen
from compress.quantization.calibration import calibration_batches
from compress.quantization.nncf_torch import enable_only, layer_quantizers, quantize
from compress.quantization.settings import Quantizers
from compress.rank import rank_correlation
from compress.records import QuantizeSensitivity
from compress.tasks.task import Scores

FILE = "sensitivity_quantize.json"
TOP = 8  # layers whose scores are measured


def quantization_sensitivity(
    model: Model,
    lab: Lab,
    *,
    artefact: str = "",
    split: str = "val",
    images: int = 60,
    top: int = TOP,
    calibration: int = 64,
    keep_float: Sequence[str] = (),
    settings: Quantizers | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure each layer of a float `model` quantized alone: its weight, and the activation that it reads.

    A point's `loss` is the mean absolute difference of the exported outputs from the float network's, so the baseline's is 0; its `scores`
    are measured for the `top` layers of greatest loss and None for the others. `rank_correlation` is Spearman's
    between loss and drop of the main metric over the layers that have both; None where fewer than three have, or where either never varies.

    artefact: what `model` was loaded from, to be written down. images: how many, spread evenly over the split.
    calibration, keep_float, settings: as in stage `quantize`; biases are not corrected, since that depends on all layers together.
    folder: where `sensitivity_quantize.json` is written, after every point; the lab's unless given. A run that was cut off goes on
    from its points.
    Raises CompressError for a quantized model, a pattern that matches no layer, or a split without images.
    """
    if model.quantization:
        raise CompressError(f"The sensitivity to quantization is that of a float model, and {artefact or 'this one'} is quantized already.")
    path = (folder or lab.folder) / FILE
    samples = spread(lab.split(split), images)
    settings = (settings or Quantizers()).model_copy(update={"bias_correction": False})
    example = example_input(model)
    calibrated_on = calibration_batches(model, lab, calibration)
    network = quantize(model.network.cpu(), calibrated_on, example, (*model.algorithm.kept, *keep_float), settings)
    layers = layer_quantizers(network, example)
    predictor = of_model(model.with_network(network.to(lab.device))).shown_as(lab.recipe.evaluate)
    report = begin(path, model, lab, artefact, split, len(samples), key_of(model, lab, split, calibration, keep_float, settings))
    with lab.bar("sensitivity to quantization", (2 + len(layers) + min(top, len(layers))) * len(samples)) as bar:

        def outputs_with(layer: str | None) -> list[Outputs]:
            enable_only(network, layers[layer] if layer else ())
            return [outputs for _, outputs in seen(predictor, samples, bar.advance)]

        def scores_with(layer: str | None) -> Scores:
            enable_only(network, layers[layer] if layer else ())
            return score(predictor, samples, done=bar.advance)[0]

        plain = outputs_with(None)
        report["baseline"] = {"loss": 0.0, "scores": scores_with(None)}
        known = {point["layer"]: point for point in report["points"]}
        for layer in layers:
            if layer not in known:
                known[layer] = {"layer": layer, "loss": difference(outputs_with(layer), plain), "scores": None}
                report["points"] = [known[name] for name in layers if name in known]
                write_json(path, report)
        for point in by_loss(report["points"])[:top]:
            if point["scores"] is None:
                point["scores"] = scores_with(point["layer"])
                write_json(path, report)
    measured = [point for point in report["points"] if point["scores"] is not None]
    drops = [-lab.task.gain(report["baseline"]["scores"], point["scores"]) for point in measured]
    report["rank_correlation"] = rank_correlation([point["loss"] for point in measured], drops)
    write_json(path, report)
    return report


def begin(path: Path, model: Model, lab: Lab, artefact: str, split: str, images: int, key: str) -> dict[str, Any]:
    """The report with the points measured so far under the same key, or with none."""
    evaluation = lab.recipe.evaluate
    known = remembered(path, QuantizeSensitivity)
    return {
        "kind": "quantize",
        "key": key,
        "weights": weights_digest(model.network),
        "artefact": artefact,
        "task": lab.task.name,
        "main": lab.task.main,
        "split": split,
        "images": images,
        "settings": evaluation.reported(model.algorithm),
        "seed": lab.recipe.seed,
        "baseline": None,
        "points": known["points"] if known and known.get("key") == key else [],
        "rank_correlation": None,
    }


def key_of(model: Model, lab: Lab, split: str, calibration: int, keep_float: Sequence[str], settings: Quantizers) -> str:
    """sha256 over all that decides a point."""
    return fingerprint(
        {
            "weights": weights_digest(model.network),
            "data": [lab.split(name).fingerprint() for name in ("train", split)],
            "evaluate": lab.recipe.evaluate.model_dump(mode="json"),
            "quantizers": [settings.model_dump(mode="json", include=set(Quantizers.model_fields)), calibration, list(keep_float)],
        }
    )


def spread(split: Split, count: int) -> list[Sample]:
    """Up to `count` images, evenly over a split."""
    if len(split) == 0:
        raise CompressError(f"The {split.name} split holds no images to measure the sensitivity on.")
    return [split[index] for index in evenly(len(split), count)]


def difference(given: Sequence[Outputs], expected: Sequence[Outputs]) -> float:
    """Mean over images and outputs of the mean absolute difference."""
    pairs = [(maps[name], values) for maps, wanted in zip(given, expected, strict=True) for name, values in wanted.items()]
    return float(np.mean([np.abs(mine - theirs).mean(dtype=np.float64) for mine, theirs in pairs]))


def by_loss(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points, the most sensitive layer first."""
    return sorted(points, key=lambda point: -point["loss"])
