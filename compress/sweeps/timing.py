"""Latencies of trials, taken alone: in one place, one artefact after the other, while no trial of the sweep is at work there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from compress.ledger import Row
from compress.measure import latencies
from compress.processes import device_name
from compress.progress import say
from compress.records import SweepTrial
from compress.remote_store import Remote, is_url
from compress.report.findings import distinct, shippable
from compress.session import RECIPE, make_lab, prepare
from compress.sweeps.trials import RUN, Job, Trials, overrides_of, store_of, trial_folder

TURNS = 3  # all artefacts are timed so often, in turn: a machine that slows down for a while then slows all of them


def time_trials(job: Job, trials: Trials, wanted: Sequence[str], counted: str | None) -> None:
    """Take the latencies of what the trials called `wanted` could ship, and of the row `counted`, into their rows.

    A latency is the middle one of the medians of :data:`TURNS` turns; how far they are apart is its scatter.
    """
    from compress.training.devices import subnormals_as_zeros

    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    if is_url(job.storage):
        for name in wanted:
            fetch_trial(job, trials.found[name])
    work = [(name, row) for name in wanted for row in rows_to_time(trials.found[name], counted)]
    with subnormals_as_zeros():
        for turn in range(TURNS):
            say(f"timing {len(work)} artefact(s), one after the other: turn {turn + 1} of {TURNS}")
            for name, row in work:
                for where, values in timed(job, name, row).items():
                    found[name, row.stage][where].append(values)
    for name in {name for name, _ in found}:
        rows = [with_latency(row, found.get((name, row["stage"]), {})) for row in trials.found[name]["rows"]]
        trials.note(name, rows=rows)


def fetch_trial(job: Job, trial: SweepTrial) -> None:
    """Have the experiment of a trial, which another machine may have run, on this one: all its stages are taken from the storage."""
    from compress import experiment

    changed, run = overrides_of(job, trial["values"], trial["seed"]), trial_folder(job, trial["trial"]) / RUN
    experiment.run(job.sweep.recipe, changed, out=run, store=Remote(store_of(job)), timing="never", device=job.device, quiet=True)


def rows_to_time(trial: SweepTrial, counted: str | None) -> list[Row]:
    """The exported files, or else the checkpoints, that are of use, and the row that counts."""
    rows = [Row.model_validate(row) for row in trial["rows"]]
    names = {row.stage for row in distinct(shippable(rows))} | {counted or rows[-1].stage}
    return [row for row in rows if row.stage in names]


def timed(job: Job, name: str, row: Row) -> dict[str, dict[str, Any]]:
    """Runtime and precision -> latency of one artefact, as the trial's recipe asks."""
    run = trial_folder(job, name) / RUN
    session = prepare(run / RECIPE, out=run)
    stage = session.recipe.stage(row.stage.partition("/")[0])
    lab = make_lab(session, run / stage.name, stage, device_name(job.device))
    return latencies(run / row.artefact, lab, session.recipe.latency.runtimes)


def with_latency(row: dict[str, Any], turns: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """A row with the latencies of several turns."""
    return {**row, "latency_ms": {where: joined(values) for where, values in turns.items()}} if turns else row


def joined(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Several latencies of one artefact as one."""
    medians = [values["median"] for values in turns]
    p90 = median(values["p90"] for values in turns)
    return {**turns[0], "median": median(medians), "p90": p90, "low": min(medians), "high": max(medians)}
