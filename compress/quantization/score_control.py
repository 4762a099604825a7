"""As few layers in float as an allowed loss of the main metric needs: the most sensitive first, how many by search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from compress.checkpoint import Model
from compress.errors import CompressError
from compress.files import remembered, write_json
from compress.lab import Lab
from compress.quantization.nncf_torch import config_json
from compress.quantization.sensitivity import by_loss
from compress.records import ScoreControl

FILE = "score_control.json"


def control_score(
    model: Model, lab: Lab, quantized: Callable[[Sequence[str]], nn.Module], order: Callable[[], Sequence[str]], max_drop: float
) -> dict[str, Any]:
    """Find the fewest layers to keep float so that the main metric on validation loses at most `max_drop` against the float `model`.

    One layer is tried, then two, four and so on, since one is often enough, and more float layers may lose more: what stands between them
    is still rounded. Between the last two bisection takes it that they do not. At least one layer is in integers.

    quantized: names of layers that stay float -> the calibrated network. order: all layers, the most sensitive first; asked for only
    where not all of them can be in integers.
    Returns, and leaves in `score_control.json` after every trial: `max_drop`, `float_score`, `tried` (each the number of
    layers `kept_float` and the `score`), and of the answer `kept_float` (names) and `score`. A run that was cut off tries nothing twice.
    Raises CompressError, with the best that was reached, where no number of layers will do.
    """
    path, metric = lab.folder / FILE, lab.task.metric
    report: dict[str, Any] = remembered(path, ScoreControl) or {
        "max_drop": max_drop,
        "split": "val",
        "tried": [],
        "kept_float": None,
        "score": None,
    }
    if "float_score" not in report:
        model.network.to(lab.device)
        report["float_score"] = lab.evaluate(model, "val")[lab.task.main]
        model.network.cpu()
        write_json(path, report)

    def score(kept: Sequence[str]) -> float:
        tried = {trial["kept_float"]: trial["score"] for trial in report["tried"]}
        if len(kept) not in tried:
            network = quantized(kept)
            candidate = model.with_network(network.to(lab.device), config_json(network))
            report["tried"].append({"kept_float": len(kept), "score": lab.evaluate(candidate, "val")[lab.task.main]})
            write_json(path, report)
            return report["tried"][-1]["score"]
        return tried[len(kept)]

    def good(kept: Sequence[str]) -> bool:
        return metric.gain(report["float_score"], score(kept)) >= -max_drop - 1e-9  # a drop of as many words is a drop of as much

    names: Sequence[str] = ()
    fewest = 0
    if not good(()):
        names = order()
        found = fewest_good(lambda count: good(names[:count]), len(names) - 1)
        if found is None:
            best = max(report["tried"], key=lambda trial: metric.gain(report["float_score"], trial["score"]))
            raise CompressError(
                f"max_drop {max_drop} cannot be kept: of {metric.label} {report['float_score']:.4f} on validation in float, the best of "
                f"the quantized models keeps {best['score']:.4f}, with {best['kept_float']} of {len(names)} layers float; allow a larger "
                "drop, or calibrate with other `ranges`."
            )
        fewest = found
    report |= {"kept_float": list(names[:fewest]), "score": score(names[:fewest])}
    write_json(path, report)
    return report


def fewest_good(good: Callable[[int], bool], most: int) -> int | None:
    """A count of 1..most that is good, where the next smaller one that was tried is not; None where none that is tried is."""
    bad, fine = 0, 1
    while fine < most and not good(fine):
        bad, fine = fine, min(2 * fine, most)
    if most < 1 or (fine == most and not good(most)):
        return None
    while fine - bad > 1:
        middle = (bad + fine) // 2
        bad, fine = (bad, middle) if good(middle) else (middle, fine)
    return fine


def sensitive_first(report: dict[str, Any]) -> list[str]:
    """Names of the layers of a sensitivity report, the most sensitive first."""
    return [point["layer"] for point in by_loss(report["points"])]
