"""The rows of a complete stage: every artefact measured once, and what the recipe expects of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from compress.checkpoint import WEIGHTS, load
from compress.errors import CompressError, told_apart
from compress.files import digest, fingerprint, is_damaged, read_json, remembered, write_json
from compress.gates import gates
from compress.lab import Lab
from compress.ledger import Row, against
from compress.measure import latencies, measure
from compress.progress import say
from compress.records import Manifest, Rows
from compress.runtimes.processor import processor
from compress.session import Session
from compress.stage_folder import MANIFEST, check_whole
from compress.stages import Stage

ROWS = "rows.json"
Timing = Literal["once", "again", "never"]


def stage_rows(session: Session, stage: Stage, lab: Lab, before: Sequence[Row], *, timing: Timing = "once") -> list[Row]:
    """The rows of the complete stage in the lab's folder: those it has, if they were measured as the recipe asks, else new ones.

    before: the ledger's rows so far, against whose first one gains are told. timing: whether latencies are taken of rows that have none,
    of those that have some again, or of none, which leaves that to a later run.
    """
    path, manifest = lab.folder / ROWS, read_json(lab.folder / MANIFEST, Manifest)
    data = lab.split(lab.report_split).fingerprint()
    key = rows_key(manifest, lab, data)
    known, timed = known_rows(stage, lab, key)
    if not known or timing == "again" or (timing == "once" and not timed):
        known = measure_all(session, stage, manifest, lab, known, timed=timing != "never")
        write_json(path, {"key": key, "digest": fingerprint(known), "timed": timing != "never", "rows": known})
    first, *rows = [
        Row.model_validate({**row, **of_recipe(session, stage), "data": data, "delta": 0.0}) for row in (main_row(stage, known), *known)
    ]
    return [against(before[0] if before else first, row) for row in rows]


def of_recipe(session: Session, stage: Stage) -> dict[str, Any]:
    """What a row says by the recipe's own names, which may be others than when its stage was run."""
    return {"experiment": session.recipe.name, "parent": session.recipe.parent(stage)}


def rows_key(manifest: Mapping[str, Any], lab: Lab, data: str) -> str:
    """sha256 over all that the figures of a stage's rows depend on. data: the fingerprint of the images that they are measured on."""
    settings = {name: getattr(lab.recipe, name).model_dump(mode="json") for name in ("evaluate", "latency")}
    return fingerprint({"stage": manifest["key"], "data": data, **settings})


def known_rows(stage: Stage, lab: Lab, key: str) -> tuple[list[dict[str, Any]], bool]:
    """The rows that were measured under `key` before, and whether they were timed; none where they are not what was measured."""
    path = lab.folder / ROWS
    found = remembered(path, Rows)
    if found and found["key"] != key:
        return [], False
    if is_damaged(path, Rows) or (found and found["digest"] != fingerprint(found["rows"])):
        say(f"{stage.name}: {path} is damaged: its rows are not those that were measured; they are measured again")
        return [], False
    return (found["rows"], found["timed"]) if found else ([], False)


def measure_all(
    session: Session, stage: Stage, manifest: Mapping[str, Any], lab: Lab, known: Sequence[Mapping[str, Any]], *, timed: bool
) -> list[dict[str, Any]]:
    """The row of every artefact. One with the very weights of another, a last epoch that was the best, has the figures measured on those.

    known: rows as measured before, of which the latencies alone are measured anew; empty where there are none.
    timed: whether latencies are taken.
    """
    before = {row["artefact"]: row for row in known}
    seen: dict[str, dict[str, Any]] = {}
    rows = []
    for artefact in manifest["artefacts"]:
        identity = row_identity(stage, artefact)
        weights = lab.folder / artefact["path"] / WEIGHTS
        content = digest(weights) if weights.is_file() else None
        if content in seen:
            row = {**seen[content], **identity}
        else:
            row = measure_artefact(session, stage, manifest, artefact, lab, before.get(identity["artefact"]), timed=timed)
        if content:
            seen[content] = row
        rows.append(row)
    return rows


def row_identity(stage: Stage, artefact: Mapping[str, Any]) -> dict[str, Any]:
    """What names one artefact's row, and the facts that its stage gave it."""
    suffix, path = artefact["suffix"], artefact["path"]
    facts = {key: value for key, value in artefact.items() if key not in ("suffix", "path")}
    return {"stage": f"{stage.name}/{suffix}" if suffix else stage.name, "artefact": os.path.normpath(f"{stage.name}/{path}"), **facts}


def main_row(stage: Stage, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the stage's own model, or the first of its files."""
    return next((row for row in rows if row["stage"] == stage.name), rows[0])


def measure_artefact(
    session: Session,
    stage: Stage,
    manifest: Mapping[str, Any],
    artefact: Mapping[str, Any],
    lab: Lab,
    before: Mapping[str, Any] | None,
    *,
    timed: bool,
) -> dict[str, Any]:
    """One row without what depends on the other rows; of one that was measured `before`, the latencies alone are new."""
    parent = session.recipe.parent(stage)
    identity = row_identity(stage, artefact)
    if not session.quiet:
        say(f"{identity['stage']}: {'timing' if before else 'measuring'}")
    runtimes = () if artefact["suffix"] else session.recipe.latency.runtimes
    path = lab.folder / artefact["path"]
    if path.is_file():
        check_whole(path)
    if before:
        return {**before, "latency_ms": latencies(path, lab, runtimes), "cpu": processor()}
    source = load(session.folder / parent) if path.is_file() and parent else None
    return {
        "kind": stage.kind,
        "parent": parent,
        "key": manifest["key"],
        "seed": manifest["seed"],
        **identity,
        **measure(path, lab, runtimes=runtimes, network=source, timed=timed),
        "seconds": manifest["seconds"],
    }


class UnmetError(CompressError):
    """A stage is not what the recipe expects. rows: the table so far, that of the stage last."""

    def __init__(self, sentence: str, rows: Sequence[Row]) -> None:
        super().__init__(sentence)
        self.rows = list(rows)


def hold_to(stage: Stage, rows: Sequence[Row], table: Sequence[Row]) -> None:
    """Stop the run where a stage's own row, or one of its files', is not what the recipe expects. table: all rows so far."""
    if stage.expect is None:
        return
    for found in gates(stage.name, stage.expect.model_dump(exclude_none=True), rows, table[0]):
        if not found.met:
            told = f"'{found.row.stage}' was expected to keep {found.name} {found.limit}, but has {told_apart(found.value, found.limit)}"
            raise UnmetError(f"{told}; its row is in the ledger.", table)
