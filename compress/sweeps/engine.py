"""Trials on Ray Tune: on the cores of this machine, or on those of a cluster. What Ray and Optuna are told is told here alone."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from compress import recipe as recipes
from compress.errors import CompressError
from compress.progress import say
from compress.records import SweepTrial
from compress.remote_store import is_url
from compress.sweeps.leases import Leases, Requests
from compress.sweeps.points import domain, plain
from compress.sweeps.process import Order, run_alone, validations
from compress.sweeps.settings import Sweep, asha_stage
from compress.sweeps.trials import RUN, Job, Trials, new_trial, overrides_of, store_of, trial_folder, values_of
from compress.tasks import TASKS
from compress.tasks.task import Task

TASK = "task"  # in Ray's settings of a trial: its name, point and seed
LOSSES = 3  # how often a trial begins again whose worker or machine was lost
PATIENCE = 5.0  # seconds for a cluster to answer
AGAIN = 100  # how often a sampler is asked for a point that it has not given before
OPTIONS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the last report of a trial is of its end, and of no epoch
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
# The figures of a trial that has ended, in the order of the objectives; None where it has none.
Judge = Callable[[SweepTrial], Sequence[float] | None]
# Called when the trials that ran together have ended.
Together = Callable[[], None]


@contextmanager
def cluster(sweep: Sweep, address: str | None) -> Iterator[None]:
    """Until the block ends, Ray runs: on this machine, or as the cluster at `address`, `host:port` or `auto`, that is there already.

    Raises CompressError where no cluster answers, or where no machine of it has what one trial takes.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in OPTIONS.items()})
    wanted = sweep.resources
    if address:
        check_answers(address)
    here: dict[str, Any] = {} if address else {"num_cpus": trials_at_a_time(sweep) * wanted.cpus, "include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        told = " ".join(str(error).split())[:200]
        if address is None:
            raise CompressError(f"Ray does not start on this machine ({told}).") from None
        mend = "start one with `ray start --head`, or set RAY_AUTH_MODE and RAY_AUTH_TOKEN as it has them"
        raise CompressError(f"--address {address}: no Ray cluster takes this sweep ({told}); {mend}.") from None
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= wanted.cpus and node.get("GPU", 0) >= wanted.gpus for node in nodes):
            told = f"resources: a trial takes {wanted.cpus} core(s) and {wanted.gpus:g} GPU(s), which no machine has"
            raise CompressError(f"{told}; take fewer.")
        yield
    finally:
        ray.shutdown()


def check_answers(address: str) -> None:
    """Refuse an address at which nothing listens: Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise CompressError(f"--address {address}: write it as host:port, such as 10.0.0.1:6379, or auto.")
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise CompressError(f"--address {address}: no Ray cluster answers there ({error}); start one with `ray start --head`.") from None


def trials_at_a_time(sweep: Sweep) -> int:
    """How many trials run at once: on a cluster that runs, as many as its cores are for, else as the cores of this machine are for."""
    if ray.is_initialized():
        return sweep.parallel or max(1, int(ray.cluster_resources().get("CPU", 1)) // sweep.resources.cpus)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sweep.parallel or max(1, cores // sweep.resources.cpus)


def run_listed(job: Job, trials: Trials, todo: Sequence[SweepTrial]) -> None:
    """Run the trials of a list, in its order."""
    tasks = [{"trial": trial["trial"], "point": trial["point"], "seed": trial["seed"]} for trial in todo]
    if tasks:
        fit(job, trials, {TASK: tune.grid_search(tasks)})


def run_sampled(job: Job, trials: Trials, judge: Judge, together: Together | None) -> None:
    """Run as many trials as are missing, at points that a sampler chooses. together: as for :class:`Asking`.

    Raises CompressError where `judge` cannot tell the figures of a trial.
    """
    missing = (job.sweep.trials or 0) - len(trials.ended())
    if missing <= 0:
        return
    asking = Asking(job, trials, judge, together, trials_at_a_time(job.sweep))
    fit(job, trials, {}, search_alg=asking, num_samples=missing)
    if asking.fault:
        raise asking.fault


def fit(job: Job, trials: Trials, space: dict[str, Any], **search: Any) -> None:
    """Let Ray Tune run the trials until all have ended. Nothing of what it writes itself is kept."""
    own = job.folder / ".ray"
    config = tune.TuneConfig(
        scheduler=scheduler(job),
        max_concurrent_trials=trials_at_a_time(job.sweep),
        reuse_actors=job.sweep.stop.asha is None,  # saves seconds a trial; one that is stopped early needs its worker's end
        **search,
    )
    taken = {"cpu": job.sweep.resources.cpus, "gpu": job.sweep.resources.gpus}
    leases = lessor() if is_url(job.storage) else None
    trainable = tune.with_resources(tune.with_parameters(work_on, job=job, leases=leases), taken)
    run_config = tune.RunConfig(
        name="tune",
        storage_path=str(own.resolve()),
        callbacks=[Noting(job, trials)],
        failure_config=tune.FailureConfig(max_failures=LOSSES),
        verbose=0,
    )
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    tune.Tuner(trainable, param_space=space, tune_config=config, run_config=run_config).fit()
    shutil.rmtree(own, ignore_errors=True)


def lessor() -> Any:
    """Who lends stages to trials, at work on this machine for as long as the sweep is."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Leases).options(num_cpus=0, scheduling_strategy=here).remote()


def work_on(config: Mapping[str, Any], job: Job, leases: Any) -> None:
    """What a worker of Ray does with one trial: its own process does the work, and every epoch that may stop it is reported.

    leases: who lends stages; None where locks of files do.
    """
    task, began = config[TASK], time.perf_counter()
    if not job.cwd.is_dir() or not Path(job.cwd, job.sweep.recipe).is_file():
        told = f"{machine()} does not see {Path(job.cwd, job.sweep.recipe)}; all machines need the same folders"
        tune.report({"state": "failed", "why": f"{told}.", "rows": [], "node": machine(), "seconds": 0.0})
        return
    os.chdir(job.cwd)  # where the paths in a recipe and in overrides are read from
    folder = trial_folder(job, task["trial"])
    changed = overrides_of(job, values_of(job.sweep, task["point"]), task["seed"])
    requests = requests_of(leases, folder, task["trial"])
    epochs = Epochs(folder / RUN, *watched(job)) if job.sweep.stop.asha else None

    def watch() -> None:
        if requests:
            requests.look()
        if epochs:
            epochs.report()

    order = Order(
        recipe=job.sweep.recipe,
        overrides=list(changed),
        folder=str(folder.resolve()),
        store=store_of(job),
        device=job.device,
    )
    try:
        end = run_alone(order, job.sweep.resources.cpus, job.cwd, watch)
    finally:
        if requests:
            requests.end()
    tune.report({**end, "node": machine(), "seconds": round(time.perf_counter() - began, 2)})


def requests_of(leases: Any, folder: Path, trial: str) -> Requests | None:
    """What asks for the stages that a trial's process wants; None where nobody lends them."""
    if leases is None:
        return None
    return Requests(
        folder,
        hold=lambda place: ray.get(leases.hold.remote(place, trial)),
        release=lambda place: ray.get(leases.release.remote(place, trial)),
    )


@dataclass
class Epochs:
    """Reports the validation score, called `name`, of every epoch of a stage, once."""

    run: Path
    stage: str
    name: str
    reported: int = 0

    def report(self) -> None:
        """Report those that have been done since the last time."""
        for epoch, score in validations(self.run, self.stage, self.name, self.reported):
            self.reported = epoch
            tune.report({"epoch": epoch, "validation": score, "node": machine()})


def machine() -> str:
    """The name of the machine that a worker is on, with Ray's name of the node: several nodes may be on one machine."""
    return f"{platform.node()}/{ray.get_runtime_context().get_node_id()[:6]}"


def watched(job: Job) -> tuple[str, str]:
    """The stage by whose validation scores trials are stopped, and what the score is called in its metrics."""
    base = base_recipe(job)
    return asha_stage(job.sweep, base), f"val_{task_of(base).main}"


def base_recipe(job: Job) -> recipes.Recipe:
    """The recipe without what trials change."""
    return recipes.load_named(Path(job.cwd, job.sweep.recipe), job.overrides)


def task_of(base: recipes.Recipe) -> Task:
    """The task of a recipe's model."""
    from compress.outside import build

    return TASKS[build(base.model).task]


def scheduler(job: Job) -> ASHAScheduler | None:
    """What stops trials early."""
    asha = job.sweep.stop.asha
    if asha is None:
        return None
    base = base_recipe(job)
    schedule = base.stage(asha_stage(job.sweep, base)).schedule()
    return ASHAScheduler(
        time_attr="epoch",
        metric="validation",
        mode="max" if task_of(base).metric.higher_is_better else "min",
        max_t=schedule.epochs - 1 if schedule else 1,  # after its last epoch there is nothing to save
        grace_period=asha.grace,
        reduction_factor=asha.factor,
        stop_last_trials=False,  # other stages come after the one that is watched
    )


def conclude(job: Job, trials: Trials, name: str, result: Mapping[str, Any] | None, error: str = "") -> None:
    """Write down how a trial ended. result: the last that it reported."""
    if trials.found[name]["state"] != "running":
        return
    last = dict(result or {})
    state, why, rows = last.get("state", "stopped"), last.get("why", ""), last.get("rows", [])
    if error:
        state, why = "failed", f"Its worker was lost: {error}"
    elif state == "stopped":
        why = f"Stopped after epoch {last.get('epoch', 0)} of '{watched(job)[0]}': others were better by then."
    seconds = float(last.get("seconds") or last.get("time_total_s") or 0.0)
    trials.note(name, state=state, why=why, seconds=seconds, node=str(last.get("node", "")), rows=rows)
    say(f"{name}: {state}{f': {why}' if why else ''}")


class Noting(tune.Callback):
    """Writes down what begins and what ends."""

    def __init__(self, job: Job, trials: Trials) -> None:
        self.job, self.trials = job, trials

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial begins, or begins again."""
        begun = new_trial(self.job, trial.config[TASK]["point"], trial.config[TASK]["seed"])
        say(f"{begun['trial']}: {', '.join(f'{key}={value}' for key, value in begun['values'].items())}{seed_text(begun)}")
        self.trials.add(begun)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial has ended."""
        conclude(self.job, self.trials, trial.config[TASK]["trial"], trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial's worker was lost once too often."""
        told = " ".join(str(trial.get_error() or "no reason is known").split())[-300:]
        conclude(self.job, self.trials, trial.config[TASK]["trial"], None, told)


def seed_text(trial: SweepTrial) -> str:
    """The seed, where one is named."""
    return "" if trial["seed"] is None else f" seed={trial['seed']}"


# Samplers


def sampler(sweep: Sweep) -> Any:
    """Optuna's sampler. With few trials it begins to learn earlier than its defaults would."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    wanted = sweep.trials or 1
    if sweep.search == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=sweep.seed, population_size=max(4, min(50, wanted // 4)))
    return optuna.samplers.TPESampler(seed=sweep.seed, n_startup_trials=max(3, min(10, wanted // 3)))


class Asking(Searcher):
    """Optuna's sampler between Ray and the trials' figures.

    It is told of the trials that an earlier run has ended, in their order, and asked first for the points of those that were cut off.
    A point that it gives twice is not run twice. With `together`, trials run in groups: when all of a group have ended, `together` is
    called, which takes their latencies while nothing else runs, then the sampler is told, and the next group begins.
    """

    def __init__(self, job: Job, trials: Trials, judge: Judge, together: Together | None, at_a_time: int) -> None:
        from ray.tune.search.optuna import OptunaSearch

        super().__init__()
        self.job, self.trials, self.judge, self.together, self.at_a_time = job, trials, judge, together, at_a_time
        self.fault: CompressError | None = None
        self.seed = job.sweep.seeds[0] if job.sweep.seeds else None
        # Ray's name of a trial -> ours, of those at work and those that the sampler is yet to be told of; and -> the sampler's.
        self.running: dict[str, str] = {}
        self.waiting: dict[str, str] = {}
        self.asked: dict[str, str] = {}
        known = [*trials.ended(), *(trial for trial in trials.found.values() if trial["state"] == "running")]
        names = [f"objective{place}" for place in range(len(job.sweep.objectives))]
        modes = ["max" if name == "score" else "min" for name in job.sweep.objectives]
        self.names = names
        self.inner = OptunaSearch(
            space=OptunaSearch.convert_search_space({key: domain(choice) for key, choice in job.sweep.space.items()}),
            metric=names if len(names) > 1 else names[0],
            mode=modes if len(names) > 1 else modes[0],
            points_to_evaluate=[trial["point"] for trial in known],
            sampler=sampler(job.sweep),
        )
        for trial in trials.ended():
            self.inner.suggest(trial["trial"])
            self.tell(trial["trial"], trial["trial"])

    def tell(self, identity: str, name: str) -> None:
        """Tell the sampler the figures of a trial that has ended; where they cannot be told, there are no more trials."""
        figures = None
        try:
            figures = self.judge(self.trials.found[name])
        except CompressError as fault:
            self.fault = fault
        result = dict(zip(self.names, figures, strict=True)) if figures is not None else None
        self.inner.on_trial_complete(identity, result, error=result is None)

    def suggest(self, trial_id: str) -> Any:
        """The next point; None while there is to be none yet."""
        if self.fault:
            return Searcher.FINISHED
        if self.waiting or (self.together and len(self.running) >= self.at_a_time):
            return None
        for turn in range(AGAIN):
            identity = trial_id if turn == 0 else f"{trial_id}-{turn}"
            point = {key: plain(value) for key, value in (self.inner.suggest(identity) or {}).items()}
            name = new_trial(self.job, point, self.seed)["trial"]
            if name in self.running.values():
                self.inner.on_trial_complete(identity, None)
            elif name in self.trials.found and self.trials.found[name]["state"] != "running":
                self.tell(identity, name)
            else:
                self.running[trial_id] = name
                self.asked[trial_id] = identity
                return {TASK: {"trial": name, "point": point, "seed": self.seed}}
        return Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Epochs tell a sampler nothing."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended; where trials run in groups, it waits for the others."""
        name = self.running.pop(trial_id)
        conclude(self.job, self.trials, name, result, "its process or its machine has gone" if error else "")
        self.waiting[trial_id] = name
        if self.together and self.running:
            return
        if self.together:
            self.together()
        for identity, ended in self.waiting.items():
            self.tell(self.asked[identity], ended)
        self.waiting = {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing, in a file: `sweep.jsonl` has all, and Ray moves the file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""
