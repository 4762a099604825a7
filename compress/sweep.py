"""`compress sweep`: many runs of one recipe, each with other values, on one machine or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from compress import outputs
from compress.before_work import check_before_work
from compress.errors import CompressError
from compress.outside import allowing
from compress.processes import check_device, only_run_in
from compress.progress import say
from compress.recipe import experiment_name
from compress.records import SweepTrial
from compress.remote_store import check_remote, fetch_file, send_file
from compress.session import prepare
from compress.sweeps import results
from compress.sweeps.points import points
from compress.sweeps.settings import SAMPLERS, Sweep, read
from compress.sweeps.timing import time_trials
from compress.sweeps.trials import (
    RUN,
    SETTINGS,
    TRIALS,
    Job,
    Trials,
    home_of,
    new_trial,
    overrides_of,
    read_trials,
    shared_copy,
    trial_folder,
    write_settings,
)

MINE = (TRIALS, SETTINGS, *results.TABLES, results.RECOMMENDED)


@allowing()
def sweep(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    address: str | None = None,
    device: str = "auto",
    retry: bool = False,
    time_again: bool = False,
) -> tuple[Job, Trials, Path | None]:
    """Run the sweep at `path`; returns what was run, its trials, and the path of the recommended recipe, if any trial is within limits.

    overrides: `key=value`, of the recipe of every trial. out: the sweep's folder; `experiments/<sweep>` unless said. address: of a Ray
    cluster. retry: run the trials again that failed. time_again: take all latencies anew.
    Trials that have ended are not run again; those that were cut off go on where they were.
    Raises CompressError, before any work, for whatever would stop all trials.
    """
    job = job_of(path, tuple(overrides), out, device)
    check_installed(job.sweep)
    check_folder(job)
    if shared_copy(job):
        check_remote(job.storage)
    listed = listed_trials(job)
    check_first(job, listed[0] if listed else None)
    if address and not job.folder.exists():  # a sweep that is done needs no cluster
        check_address(address)
    job.folder.mkdir(parents=True, exist_ok=True)
    with only_run_in(job.folder):
        if shared_copy(job):
            fetch_file(shared_copy(job), TRIALS, job.folder / TRIALS)  # another machine may have gone on
        trials = read_trials(job.folder, shared_copy(job))
        write_settings(job)
        run(job, chosen(job, trials, listed, retry=retry), listed, address, time_again=time_again)
        recommended = results.write(job, trials)
        for name in MINE if shared_copy(job) else ():
            if (job.folder / name).exists():
                send_file(job.folder / name, shared_copy(job), name)
        return job, trials, recommended


def job_of(path: Path, overrides: tuple[str, ...], out: Path | None, device: str) -> Job:
    """What is to be run, read and checked."""
    check_device(device)
    settings = read(path, overrides)
    folder = out or Path("experiments") / experiment_name(path)
    return Job(settings, overrides, folder, settings.storage or str(folder), Path.cwd(), device)


def check_installed(settings: Sweep) -> None:
    """Refuse to begin without the packages of the extra."""
    wanted = ("ray", "optuna") if settings.search in SAMPLERS else ("ray",)
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise CompressError(f"compress sweep needs {' and '.join(missing)}; install them with `pip install 'compress-ocr[sweep]'`.")


def check_folder(job: Job) -> None:
    """Refuse folders that cannot be written into, and one with files that no sweep has left."""
    for folder in (job.folder, home_of(job)):
        outputs.check_folder(folder)
    if not (job.folder / SETTINGS).exists():
        for name in MINE:
            if (job.folder / name).exists():
                raise CompressError(f"{job.folder / name} would be replaced, and no sweep has left it; give another folder with --out.")


def check_address(address: str) -> None:
    """Refuse a cluster that does not answer, before there is a folder."""
    from compress.sweeps.engine import check_answers

    check_answers(address)


def check_first(job: Job, trial: SweepTrial | None) -> None:
    """Refuse what would stop every trial: the checks of `compress run`, on the recipe as it is, or as its first trial has it."""
    faults = []
    for changed in (job.overrides, overrides_of(job, trial["values"], trial["seed"]) if trial else job.overrides):
        try:
            check_before_work(prepare(job.sweep.recipe, changed, trial_folder(job, "first") / RUN))
            return
        except CompressError as error:
            faults.append(error)
    raise faults[0]


def listed_trials(job: Job) -> list[SweepTrial]:
    """All trials of a grid or a random search, each once; none for a sampler, which chooses as it goes."""
    if job.sweep.search in SAMPLERS:
        return []
    seeds = job.sweep.seeds or (None,)
    found = [new_trial(job, point, seed) for point in points(job.sweep) for seed in seeds]
    return list({trial["trial"]: trial for trial in found}.values())


def chosen(job: Job, trials: Trials, listed: Sequence[SweepTrial], *, retry: bool) -> Trials:
    """The trials known so far, without those that are no longer meant, and those that failed where they are to be tried again."""
    wanted = {trial["trial"] for trial in listed}
    for name, trial in list(trials.found.items()):
        sampled = job.sweep.search in SAMPLERS
        now = same_trial(job, trial) if sampled else name in wanted
        if not now or (retry and trial["state"] == "failed"):
            del trials.found[name]
    return trials


def same_trial(job: Job, trial: SweepTrial) -> bool:
    """Whether a trial of a sampler is one of this space and this recipe still."""
    if set(trial["point"]) != set(job.sweep.space):
        return False
    try:
        return new_trial(job, trial["point"], trial["seed"])["trial"] == trial["trial"]
    except IndexError:
        return False


def run(job: Job, trials: Trials, listed: Sequence[SweepTrial], address: str | None, *, time_again: bool) -> None:
    """Run what is left to be run, and time what has not been timed."""
    from compress.sweeps import engine

    todo = [trial for trial in listed if trial["trial"] not in {ended["trial"] for ended in trials.ended()}]
    missing = len(todo) if listed else (job.sweep.trials or 0) - len(trials.ended())
    say(f"{len(trials.ended())} trial(s) done, {max(0, missing)} to run")

    def time_them() -> None:
        fresh = [trial["trial"] for trial in trials.ended() if trial["state"] == "finished" and (time_again or not is_timed(trial))]
        if fresh:
            time_trials(job, trials, fresh, job.sweep.row)

    if missing > 0:
        together = time_them if "latency_ms" in job.sweep.objectives else None
        with engine.cluster(job.sweep, address):
            if listed:
                engine.run_listed(job, trials, todo)
            else:
                engine.run_sampled(job, trials, lambda trial: results.judged(job.sweep, trial), together)
    time_them()


def is_timed(trial: SweepTrial) -> bool:
    """Whether its latencies were taken."""
    return any(row["latency_ms"] for row in trial["rows"])
