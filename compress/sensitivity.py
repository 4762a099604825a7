"""`compress sensitivity`: where a trained model can be pruned, as a JSON file, plots and a recommended allocation."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch

from compress import outputs, progress
from compress.checkpoint import DESCRIPTION, load, read_description
from compress.cost import parameters
from compress.description import understood
from compress.errors import CompressError, suggestion
from compress.files import write_json
from compress.lab import Lab, no_teacher
from compress.outside import allowing
from compress.pruning.allocation import by_sensitivity, curves_from, least_important
from compress.pruning.budget import weakest_enough
from compress.pruning.groups import find_groups, remove_channels
from compress.pruning.sensitivity import POINTS, Bench, Settings, open_bench, sweep
from compress.pruning.settings import Criterion, Scope
from compress.report.plots import quantization_bars, save, sensitivity_curves, sensitivity_heatmap
from compress.run_settings import RunSettings
from compress.runtimes.runtime import available_threads
from compress.session import prepare, states
from compress.stage_folder import DONE

if TYPE_CHECKING:
    from compress.data.formats import DataConfig
    from compress.recipe import Recipe

NAME, NAME_QUANTIZE = "sensitivity", "sensitivity_quantize"
HALF = 0.5


@allowing()
def of_groups(
    source: Path,
    *,
    overrides: Sequence[str] = (),
    data: DataConfig | None = None,
    settings: Settings,
    out: Path | None = None,
    workers: int | None = None,
) -> tuple[dict[str, Any], Path]:
    """Measure the checkpoint at `source`, or the model that a recipe's first prune stage starts from; returns what was found and where.

    `sensitivity.json` and the plots go to `out`, by default the folder `sensitivity` of the experiment; points are kept there as they are
    measured, so an interrupted call goes on. data: those to measure on, instead of the experiment's. workers: processes; by default as many
    as there are cores. `plan` is the recommended allocation for half of the parameters.
    """
    checkpoint, recipe, folder = find_model(source, overrides, data)
    plots = [f"{name}.{kind}" for name in ("heatmap", "curves") for kind in ("png", "svg")]
    out = folder_for(out, folder, (f"{NAME}.json", POINTS, *plots))
    bench = open_bench(checkpoint, recipe, settings)
    if bench.model.quantization:
        raise CompressError(f"{checkpoint} holds a quantized model, which cannot be pruned; give the float one that it was made from.")
    with progress.bar("sensitivity (points)", 1) as bar:
        found = sweep(bench, checkpoint, out, workers or available_threads(None), bar.reach)
    found = {**found, "artefact": str(checkpoint), "plan": recommended(bench, found)}
    write_json(out / f"{NAME}.json", found)
    save(sensitivity_heatmap(found), out / "heatmap", found["weights"])
    save(sensitivity_curves(found), out / "curves", found["weights"])
    return found, out


@allowing()
def of_layers(
    source: Path,
    *,
    overrides: Sequence[str] = (),
    data: DataConfig | None = None,
    images: int | None = None,
    fast: bool = False,
    out: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """The same for quantization: every layer alone in 8 bits; `sensitivity_quantize.json` and a plot."""
    from compress.quantization.sensitivity import TOP, quantization_sensitivity

    checkpoint, recipe, folder = find_model(source, overrides, data)
    out = folder_for(out, folder, (f"{NAME_QUANTIZE}.json", "quantize.png", "quantize.svg"))
    lab = Lab(recipe, out, torch.device("cpu"), no_teacher)
    count = images or len(lab.split("val"))
    top = 0 if fast else TOP
    found = quantization_sensitivity(load(checkpoint), lab, artefact=str(checkpoint), images=count, top=top, folder=out)
    save(quantization_bars(found), out / "quantize", found["weights"])
    return found, out


def folder_for(out: Path | None, experiment: Path, names: Collection[str]) -> Path:
    """Where to write `names`: the experiment's own folder, or one that was asked for.

    Raises CompressError for a folder that cannot be written into, or holds files of these names that the workbench has not made.
    """
    own = experiment / NAME
    if out is None or out.resolve() == own.resolve():
        outputs.check_folder(own)
        own.mkdir(parents=True, exist_ok=True)
        return own
    outputs.claim(out, names)
    return out


def settings_from(ratios: str, criterion: str, scope: str, images: int | None, fast: bool) -> Settings:
    """Settings from the command line's words. Raises CompressError for those that are none."""
    for option, value, known in (("criterion", criterion, get_args(Criterion)), ("scope", scope, get_args(Scope))):
        if value not in known:
            raise CompressError(f"--{option} {value} is not known{suggestion(value, known)}")
    try:
        shares = tuple(float(part) for part in ratios.split(","))
    except ValueError:
        shares = ()
    if not shares or any(not 0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)):
        raise CompressError(f"--ratios {ratios}: give increasing shares between 0 and 1, such as 0.3,0.6,0.9.")
    return Settings(shares, cast(Criterion, criterion), cast(Scope, scope), images=images, full=not fast)


def find_model(source: Path, overrides: Sequence[str], data: DataConfig | None) -> tuple[Path, RunSettings, Path]:
    """Checkpoint folder, settings, and experiment folder of a checkpoint or a recipe; the working folder of one in no experiment."""
    if source.suffix in (".yml", ".yaml"):
        if data:
            raise CompressError(f"--data: {source} has data of its own; change them with -o data.root=DIR, or give a checkpoint folder.")
        return model_before_pruning(source, overrides)
    if not (source / DESCRIPTION).exists():
        raise CompressError(f"{source} is neither a recipe (.yml) nor a checkpoint folder with a {DESCRIPTION}.")
    home = next((folder for folder in source.resolve().parents if (folder / "recipe.yml").exists()), None)
    if data:
        return source, settings_on(data, source, overrides), home or Path()
    if home is None:
        raise CompressError(f"{source} lies in no experiment, so say what to measure on: --data icdar2015 --root DIR.")
    from compress.recipe import load

    return source, load(home / "recipe.yml", overrides), home


def settings_on(data: DataConfig, checkpoint: Path, overrides: Sequence[str]) -> RunSettings:
    """What a recipe would say of a checkpoint and data that stand in none."""
    from compress.recipe import changed

    found = understood(read_description(checkpoint), checkpoint / DESCRIPTION)
    if not data.serves(found.algorithm.task):
        raise CompressError(
            f"{checkpoint} is a model for {found.algorithm.task}, but data of the format {data.format} are for {data.task}."
        )
    config, evaluate = changed(data, found.evaluate, found.algorithm, overrides)
    return RunSettings(model=found.config, data=config, augment=config.default_augment(), evaluate=evaluate)


def model_before_pruning(path: Path, overrides: Sequence[str]) -> tuple[Path, Recipe, Path]:
    """What a recipe's first prune stage starts from, which must have been trained."""
    session = prepare(path, overrides)
    recipe = session.recipe
    prunes = [stage for stage in recipe.stages if stage.pruning()]
    if not prunes:
        raise CompressError(f"{path} has no prune stage; give a checkpoint folder instead.")
    parent = recipe.parent(prunes[0])
    if parent is None or states(session)[parent] != DONE:
        raise CompressError(f"'{parent}' of {path} has not been trained yet; `compress run {path}` does that.")
    return session.folder / parent, recipe, session.folder


def recommended(bench: Bench, found: dict[str, Any]) -> dict[str, Any]:
    """The allocation that takes half of the parameters for the least predicted loss; its size is counted on a model pruned that way."""
    curves = curves_from(found, "params")
    whole = parameters(bench.model.network)

    def pruned(strength: float) -> tuple[dict[str, int], int]:
        kept = by_sensitivity(bench.groups, curves, strength, 1, bench.settings.ratios[-1])
        model = bench.model.with_network(copy.deepcopy(bench.model.network))
        groups = find_groups(model, bench.settings.scope, bench.settings.protect)
        remove_channels(model, groups, least_important(groups, bench.scores, kept))
        return kept, parameters(model.network)

    strength = weakest_enough(lambda strength: pruned(strength)[1] <= HALF * whole, tries=12)
    kept, left = pruned(1.0 if strength is None else strength)
    return {"target": {"params": "-50%"}, "params": left, "channels": kept}
