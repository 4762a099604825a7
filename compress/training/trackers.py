"""TensorBoard, MLflow and Weights & Biases, through accelerate's trackers: off unless named in a recipe, offline unless told otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from compress.errors import CompressError
from compress.processes import main_process

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
FOLDER = ".trackers"  # in the experiment's folder; no stage can be called so
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}  # nothing is sent anywhere unasked


def check_installed(names: Sequence[TrackerName]) -> None:
    """Raises CompressError for a tracker whose package, called as the tracker is, is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise CompressError(f"trackers: {name} is not installed; `pip install {name}`, or take it out of the recipe's trackers.")


@contextmanager
def tracking(names: Sequence[TrackerName], experiment: Path, label: str, epoch: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Gives `log(entry)`, which takes one epoch's metrics, `epoch` among them, to every tracker; in the main process alone.

    experiment: its folder, in which trackers write. label: what is trained, `int8/control`. epoch: of the last one that is done; what
    an earlier run logged of later ones is superseded.
    """
    with ExitStack() as stack:
        opened = []
        for name in names if main_process() else ():
            opened.append(open_tracker(name, experiment, label, epoch))
            stack.callback(opened[-1].finish)

        def log(entry: Mapping[str, float]) -> None:
            for tracker in opened:
                tracker.log({key: value for key, value in entry.items() if key != "epoch"}, step=entry["epoch"])

        yield log


def open_tracker(name: TrackerName, experiment: Path, label: str, epoch: int) -> GeneralTracker:
    """One started tracker, its files in the experiment's folder unless `MLFLOW_TRACKING_URI` or `WANDB_MODE` say otherwise."""
    from accelerate import tracking as accelerated

    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    folder = experiment / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if name == "tensorboard":
        tracker = accelerated.TensorBoardTracker(label, logging_dir=folder / name, purge_step=epoch + 1)
    elif name == "mlflow":
        use_database(folder.resolve() / "mlflow.db")
        tracker = accelerated.MLflowTracker(experiment.name, logging_dir=str(folder.resolve() / name), run_name=label)
    else:
        mode = os.environ.get("WANDB_MODE", "offline")
        tracker = accelerated.WandBTracker(experiment.name, name=label, dir=str(folder), mode=mode)
    tracker.start()
    return tracker


def use_database(path: Path) -> None:
    """Let mlflow write to a file, unless whoever runs this named a place; mlflow itself names the file of the run before this one."""
    import mlflow

    if os.environ.get("MLFLOW_TRACKING_URI", path.name).endswith(path.name):
        mlflow.set_tracking_uri(f"sqlite:///{path}")
