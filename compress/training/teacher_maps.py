"""A teacher's maps of every training image, computed once and kept on disk: a step of training then costs the same with any teacher.

An entry of the cache is a folder with a file for each image, `<index>.npy`, (C, h, w) uint8: the teacher's outputs in 0..1 as 0..255, for
the whole image at the size at which the teacher is evaluated, with their sha256 behind them. Each file is written under a temporary name
and renamed when complete, so that a run which was cut off goes on where it was; one that is not what it was is named and computed again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compress.checkpoint import Model, example_input
from compress.data.cache import cache_folder, cannot_write
from compress.data.prepare import network_input
from compress.data.split import Annotation, Split
from compress.errors import CompressError
from compress.files import fingerprint, tensors_digest
from compress.lab import Lab
from compress.predictor import of_model
from compress.processes import main_process, wait_for_everyone
from compress.tasks import TASKS
from compress.training.devices import Precision
from compress.training.features import tried_out
from compress.training.modes import show_all_maps

LAYOUT = 3
WHOLE = 255  # what is kept for 1
DIGEST = hashlib.sha256().digest_size  # bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherMaps:
    """`maps(index)`: the teacher's maps of the image with that number in its split, name -> (C, h, w) uint8.

    channels: how many each map has, in the order of the files.
    """

    folder: Path
    channels: dict[str, int]

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        ends = np.cumsum(list(self.channels.values()))
        return dict(zip(self.channels, np.split(np.load(self.file(index)), ends[:-1]), strict=True))

    def file(self, index: int) -> Path:
        """Where the maps of one image are."""
        return self.folder / f"{index}.npy"

    def whole(self, index: int) -> bool:
        """Whether the maps of one image are there and undamaged; damage is logged."""
        try:
            content = self.file(index).read_bytes()
        except FileNotFoundError:
            return False
        if hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:]:
            return True
        log.warning("The teacher's maps in %s are damaged; they are computed again.", self.file(index))
        return False

    def write(self, index: int, maps: np.ndarray) -> None:
        """Keep the (C, h, w) uint8 maps of one image."""
        partial, content = self.folder / f"{index}.{os.getpid()}.partial", io.BytesIO()
        np.save(content, maps)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content.getvalue() + hashlib.sha256(content.getvalue()).digest())
            partial.replace(self.file(index))
        except OSError as error:
            raise cannot_write(cache_folder(), error) from error
        finally:
            partial.unlink(missing_ok=True)


def kept_maps(
    teacher: Model, split: Split, names: Sequence[str], lab: Lab, precision: Precision = "no", *, exported: bool = False
) -> TeacherMaps:
    """The maps that `names` are of the teacher's, for all images of `split`; computed where they are not kept yet.

    precision: that of the training which they are for. exported: as they are outside of training, PSENet's a quarter as large.
    The main process of a distributed run computes, the others wait.
    """
    name = key(teacher, split, names, precision, exported=exported)
    maps = TeacherMaps(cache_folder() / f"teacher-{name}", channels_of(teacher, names, exported=exported))
    if main_process():
        compute(teacher, split, maps, lab, precision, exported=exported)
    wait_for_everyone()
    return maps


def key(teacher: Model, split: Split, names: Sequence[str], precision: Precision = "no", *, exported: bool = False) -> str:
    """sha256 over all that decides the maps: weights and architecture, input size, images, precision."""
    evaluate = teacher.evaluate
    return fingerprint(
        {
            "layout": LAYOUT,
            "weights": tensors_digest(teacher.network.state_dict()),
            "model": teacher.config,
            "evaluate": evaluate.model_dump(mode="json", include=set(type(evaluate).model_fields)),
            "images": split.fingerprint(),
            "maps": list(names),
            "precision": precision,
            "exported": exported,
        }
    )


def channels_of(teacher: Model, names: Sequence[str], *, exported: bool = False) -> dict[str, int]:
    """How many channels each of the teacher's maps has."""
    outputs = inferred(teacher) if exported else tried_out(teacher, (), example_input(teacher))[0]
    return {name: outputs[name].shape[1] for name in names}


@torch.inference_mode()
def compute(teacher: Model, split: Split, maps: TeacherMaps, lab: Lab, precision: Precision, *, exported: bool = False) -> None:
    """Write the maps that are missing."""
    missing = [index for index in range(len(split)) if not maps.whole(index)]
    if not missing:
        return
    wanted, task = teacher.algorithm.input, TASKS[teacher.algorithm.task]
    network = teacher.network.to(lab.device)
    network.eval() if exported else show_all_maps(network)
    with lab.bar(f"{lab.name} (maps of the teacher)", len(split), len(split) - len(missing)) as bar:
        for index in missing:
            image = task.shown(split[index].image, teacher.evaluate, wanted)
            pixels = torch.from_numpy(network_input([image], wanted)).to(lab.device, memory_format=torch.channels_last)
            with torch.autocast(lab.device.type, torch.bfloat16, enabled=precision == "bf16"):
                outputs = network(pixels)
            stacked = torch.cat([outputs[name][0].float() for name in maps.channels])
            maps.write(index, (stacked.clamp(0, 1) * WHOLE).round().byte().cpu().numpy())
            bar.advance(1)


def taught_split(
    teacher: Model, split: Split, names: Sequence[str], lab: Lab, *, carry: bool, correct: bool, precision: Precision = "no"
) -> Split:
    """`split` with the teacher's maps, which training views then take along, and with its ground truth corrected by the teacher.

    names: the maps that are carried. carry, correct: which of the two is done. precision: in which the maps are computed.
    """
    annotations = split.annotations
    if correct:
        exported = exported_outputs(teacher)
        annotations = corrected(teacher, split, kept_maps(teacher, split, exported, lab, precision, exported=True), exported)
    return dataclasses.replace(split, annotations=annotations, maps=kept_maps(teacher, split, names, lab, precision) if carry else None)


def corrected(teacher: Model, split: Split, maps: TeacherMaps, exported: Sequence[str]) -> list[Annotation]:
    """The annotations of `split` with what the teacher finds taken into account, as its task says."""
    correct = TASKS[teacher.algorithm.task].corrected
    assert correct is not None  # the stage has asked
    read = of_model(teacher).reader(teacher.evaluate.with_tuned(teacher.tuned))
    found = []
    for index, annotation in enumerate(split.annotations):
        kept = maps(index)
        outputs = {name: kept[name][None].astype(np.float32) / WHOLE for name in exported}
        answer = read(outputs, split.image(index).shape[:2])
        found.append(dataclasses.replace(annotation, truth=correct(annotation.truth, answer)))
    return found


def exported_outputs(teacher: Model) -> list[str]:
    """The names of what the teacher gives outside of training, which its decoding reads."""
    return list(inferred(teacher))


@torch.inference_mode()
def inferred(teacher: Model) -> dict[str, torch.Tensor]:
    """What the teacher gives outside of training for a small image."""
    network = teacher.network.eval()
    found: dict[str, torch.Tensor] = network(example_input(teacher).to(next(network.parameters()).device))
    return found


def check_can_be_kept(teacher: Model, names: Sequence[str]) -> None:
    """Raises CompressError for an output of the teacher that is no map in 0..1, and for a task whose views take no maps along."""
    for name in names:
        if teacher.algorithm.copies.get(name) != "dice":
            raise CompressError(f"cache: the teacher's '{name}' is no map in 0..1, which alone are kept; leave `cache` out.")
    if not TASKS[teacher.algorithm.task].carries_maps:
        raise CompressError(f"cache: training views of task '{teacher.algorithm.task}' take no maps along; leave `cache` out.")


def check_can_correct(teacher: Model) -> None:
    """Raises CompressError where the ground truth cannot be corrected by what the teacher finds."""
    algorithm = teacher.algorithm
    if TASKS[algorithm.task].corrected is None:
        raise CompressError(f"labels: a teacher cannot correct the ground truth of task '{algorithm.task}'; leave `labels` out.")
    for name in exported_outputs(teacher):
        if algorithm.copies.get(name) != "dice":
            raise CompressError(
                f"labels: the teacher's answers are read from '{name}', which is no map in 0..1 and is not kept; choose another teacher."
            )
