"""The trials of a sweep: their points, their folders, and `sweep.jsonl`, which holds one line for each and is what counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compress import recipe as recipes
from compress.errors import CompressError
from compress.files import fingerprint, first_fault, read_json, read_lines, write_json, write_text
from compress.progress import say
from compress.records import SweepSettings, SweepTrial
from compress.remote_store import folder_for, is_url, send_file
from compress.sweeps.settings import Range, Sweep, override

TRIALS = "sweep.jsonl"
SETTINGS = "sweep.json"  # in the sweep's folder: the settings as they were run, every default filled in
# Of a trial: the folder of its experiment, what its process printed, and how it ended. Teachers' experiments lie beside the first.
RUN, LOG, END = "run", "log.txt", "end.json"
STORE = "store"  # in the storage: the stages that trials share
# Key of the recipe -> the number that stands for its value: its place in the list, or itself where the space is a range.
Point = dict[str, float | int]


@dataclass
class Job:
    """What is the same for all trials.

    folder: the sweep's own. storage: where trials and shared stages lie, a folder, or a URL: trials then lie on the machines that run
    them, each in a folder of its own. cwd: the working folder.
    """

    sweep: Sweep
    overrides: tuple[str, ...]
    folder: Path
    storage: str
    cwd: Path
    device: str = "auto"


@dataclass
class Trials:
    """The lines of a `sweep.jsonl`, by the names of the trials in the order in which they began."""

    path: Path
    found: dict[str, SweepTrial] = field(default_factory=dict)
    shared: str = ""  # the URL of a folder that has a copy

    def note(self, name: str, **facts: Any) -> None:
        """Change what is known of a trial, in the file too."""
        self.found[name].update(facts)  # type: ignore[typeddict-item]
        self.write()

    def add(self, trial: SweepTrial) -> None:
        """Write down a trial that begins; one that is there begins again."""
        self.found[trial["trial"]] = trial
        self.write()

    def write(self) -> None:
        """The whole file, at once."""
        write_text(self.path, "".join(json.dumps(trial) + "\n" for trial in self.found.values()))
        if self.shared:
            try:
                send_file(self.path, self.shared, self.path.name)
            except CompressError as fault:  # the next time may do; the trials go on
                say(f"{self.path.name} is here alone for now: {fault}")

    def ended(self) -> list[SweepTrial]:
        """Those that are not to be run again."""
        return [trial for trial in self.found.values() if trial["state"] != "running"]


def is_sweep(folder: Path) -> bool:
    """Whether a sweep has left the folder."""
    return (folder / TRIALS).exists()


def read_trials(folder: Path, shared: str = "") -> Trials:
    """The trials of the sweep in `folder`; none where it has not begun. Raises CompressError where the file is damaged."""
    path = folder / TRIALS
    return Trials(path, {trial["trial"]: trial for trial in read_lines(path, SweepTrial)}, shared)


def write_settings(job: Job) -> None:
    """The settings, for the report."""
    settings = {**job.sweep.model_dump(mode="json", by_alias=True, exclude={"space"}), "storage": job.storage}
    write_json(job.folder / SETTINGS, {"sweep": settings, "overrides": list(job.overrides)})


def read_settings(folder: Path) -> Sweep:
    """The settings of the sweep in `folder`, without its space. Raises CompressError where they are missing or damaged."""
    path = folder / SETTINGS
    try:
        return Sweep.model_validate(read_json(path, SweepSettings)["sweep"])
    except ValidationError as error:
        raise CompressError(f"{path} is damaged or from another version: {first_fault(error)}; run the sweep again.") from None


def values_of(sweep: Sweep, point: Mapping[str, float | int]) -> dict[str, Any]:
    """Key -> the value that a point stands for."""
    return {key: place if isinstance(sweep.space[key], Range) else sweep.space[key][int(place)] for key, place in point.items()}


def overrides_of(job: Job, values: Mapping[str, Any], seed: int | None) -> tuple[str, ...]:
    """What a trial changes in the recipe."""
    own = [override(key, value) for key, value in values.items()]
    return (*job.overrides, *own, *([f"seed={seed}"] if seed is not None else []))


def new_trial(job: Job, point: Point, seed: int | None) -> SweepTrial:
    """A trial that begins. It is named after its recipe with all values filled in, so that an edited recipe gives other trials."""
    values = values_of(job.sweep, point)
    changed = overrides_of(job, values, seed)
    content: object = changed
    with suppress(CompressError):  # for a value that the recipe refuses; the trial will say so
        content = recipes.load_named(Path(job.sweep.recipe), changed).dump()
    name = fingerprint(content)[:12]
    return SweepTrial(trial=name, point=point, values=values, seed=seed, state="running", why="", seconds=0.0, node="", rows=[])


def home_of(job: Job) -> Path:
    """Where trials, and the stages that they share, lie on this machine."""
    return folder_for(job.storage) if is_url(job.storage) else Path(job.storage)


def trial_folder(job: Job, name: str) -> Path:
    """Where a trial has its experiment, its teachers' and its log."""
    return home_of(job) / "trials" / name


def store_of(job: Job) -> str:
    """The stages that all trials share: a folder, or a URL."""
    return f"{job.storage.rstrip('/')}/{STORE}" if is_url(job.storage) else str((Path(job.storage) / STORE).resolve())


def shared_copy(job: Job) -> str:
    """The URL of the folder with the copies of what the sweep leaves; empty where `storage` is a folder."""
    return f"{job.storage.rstrip('/')}/{job.folder.resolve().name}" if is_url(job.storage) else ""
