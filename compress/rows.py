"""The rows of a complete stage: every artefact measured once, and what the recipe expects of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compress.errors import CompressError
from compress.files import read_json, write_json
from compress.ledger import Row
from compress.progress import console
from compress.recipe import fingerprint
from compress.stage_folder import MANIFEST
from compress.tasks import TASKS

if TYPE_CHECKING:
    from compress.experiment import Experiment
    from compress.lab import Lab
    from compress.stages import Stage


ROWS = "rows.json"


def stage_rows(experiment: Experiment, stage: Stage, lab: Lab) -> list[Row]:
    """The rows of the complete stage in the lab's folder: those it has, if they were measured as the recipe asks, else new
    ones; where the experiment is to be timed again, those it has with new latencies.
    """
    folder = lab.folder
    manifest = read_json(folder / MANIFEST)
    key = fingerprint(
        {
            "stage": manifest["key"],
            "data": lab.split(lab.report_split).fingerprint(),
            "latency": experiment.recipe.latency.model_dump(mode="json"),
        }
    )
    known = read_json(folder / ROWS) or {}
    if experiment.time_again or known.get("key") != key:
        known = {"key": key, "rows": measure_all(experiment, stage, manifest, lab, known if known.get("key") == key else {})}
        write_json(folder / ROWS, known)
    base = experiment.rows[0].scores if experiment.rows else main_row(stage, known["rows"])["scores"]
    identity = {"experiment": experiment.recipe.name}
    return [Row.model_validate({**row, **identity, "delta": lab.task.gain(base, row["scores"])}) for row in known["rows"]]


def measure_all(experiment: Experiment, stage: Stage, manifest: dict[str, Any], lab: Lab, known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The row of every artefact. One with the very bytes of another, a last epoch that was the best, has the figures measured on those.

    known: rows as measured before, of which the latencies alone are measured anew; empty where there are none.
    """
    before = {row["artefact"]: row for row in known.get("rows", ())}
    seen: dict[bytes, dict[str, Any]] = {}
    rows = []
    for artefact in manifest["artefacts"]:
        weights = lab.folder / artefact["path"] / "model.safetensors"
        digest = hashlib.sha256(weights.read_bytes()).digest() if weights.exists() else None
        row = {**seen[digest], **row_identity(stage, artefact)} if digest in seen else None
        known_row = before.get(row_identity(stage, artefact)["artefact"])
        row = row or measure_artefact(experiment, stage, manifest, artefact, lab, known_row)
        if digest:
            seen[digest] = row
        rows.append(row)
    return rows


def row_identity(stage: Stage, artefact: dict[str, Any]) -> dict[str, Any]:
    """What names one artefact's row, and the facts that its stage gave it."""
    suffix, path = artefact["suffix"], artefact["path"]
    facts = {key: value for key, value in artefact.items() if key not in ("suffix", "path")}
    return {"stage": f"{stage.name}/{suffix}" if suffix else stage.name, "artefact": os.path.normpath(f"{stage.name}/{path}"), **facts}


def main_row(stage: Stage, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the stage's own model, or the first of its files."""
    return next((row for row in rows if row["stage"] == stage.name), rows[0])


def measure_artefact(
    experiment: Experiment, stage: Stage, manifest: dict[str, Any], artefact: dict[str, Any], lab: Lab, before: dict[str, Any] | None
) -> dict[str, Any]:
    """One row without what depends on the other rows; of one that was measured `before`, the latencies alone are new."""
    from compress.checkpoint import load as load_checkpoint
    from compress.measure import latencies, measure, processor

    parent = manifest["parent"]
    identity = row_identity(stage, artefact)
    if not experiment.quiet:
        console.print(f"  {identity['stage']}: {'timing' if before else 'measuring'}", markup=False)
    runtimes = () if artefact["suffix"] else experiment.recipe.latency.runtimes
    path = lab.folder / artefact["path"]
    if before:
        return {**before, "latency_ms": latencies(path, lab, runtimes), "cpu": processor()}
    source = load_checkpoint(experiment.folder / parent) if path.is_file() else None
    return {
        "kind": stage.kind,
        "parent": parent,
        "key": manifest["key"],
        "seed": manifest["seed"],
        **identity,
        **measure(path, lab, runtimes=runtimes, network=source),
        "seconds": manifest["seconds"],
    }


def hold_to(stage: Stage, rows: Sequence[Row], first: Row) -> None:
    """Stop the run where a stage's own row, or one of its files', is not what the recipe expects."""
    expect = stage.expect
    if expect is None:
        return
    for row in [row for row in rows if row.stage == stage.name] or rows:
        slowest = max((values["median"] for values in row.latency_ms.values()), default=0.0)
        limits = [
            ("max_drop", -TASKS[row.task].gain(first.scores, row.scores), expect.max_drop, 1),
            ("min_score", row.score, expect.min_score, -1),
            ("max_latency_ms", slowest, expect.max_latency_ms, 1),
            ("max_bytes", row.bytes, expect.max_bytes, 1),
        ]
        for name, value, limit, sign in limits:
            if limit is not None and sign * (value - limit) > 0:
                raise CompressError(f"'{row.stage}' was expected to keep {name} {limit}, but has {value:.4g}; its row is in the ledger.")
