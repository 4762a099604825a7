"""`compress eval`, `predict` and `benchmark`: what an artefact scores, answers and takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from compress.cli_options import AsJson, Device, Overrides, named, refuse


def evaluate(
    artefact: Annotated[
        Path, typer.Argument(help="A checkpoint folder, a pipeline, or an exported file: .onnx, .xml, .torchscript, .param.")
    ],
    recipe: Annotated[
        Path | None, typer.Option(callback=named, help="Take the data from this recipe.", show_default="the artefact's own experiment")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A data format instead, such as icdar2015; for a classifier, labels.")] = None,
    root_folder: Annotated[Path | None, typer.Option("--root", help="Where the data of --data are.")] = None,
    split: Annotated[str | None, typer.Option(help="train, val or test.", show_default="test; val where the data have none")] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Choose thresholds on validation and store them with the checkpoint.")] = False,
    as_json: AsJson = False,
    override: Overrides = None,
    device: Device = "auto",
) -> None:
    """The scores of a checkpoint or an exported file, measured on it, by the metrics of its task.

    Examples:

      compress eval experiments/db_mv3_prune0.6_distill/baseline --json

      compress eval model.onnx --data icdar2015 --root data/icdar2015 --split val

      compress eval experiments/db_mv3_prune0.6_distill/distilled --tune -o evaluate.short_side=480

      compress eval checkpoints/angle --data labels --root lines

      compress eval experiments/ocr_small/int8 --data icdar2015 --root data/icdar2015 --split val
    """
    from compress.assess import assess
    from compress.report.evaluation import evaluation_text

    found = assess(artefact, recipe=recipe, data=data, root=root_folder, split=split, tune=tune, overrides=override or (), device=device)
    typer.echo(json.dumps(found) if as_json else evaluation_text(found))


def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, folders of images, or patterns such as 'scans/*.jpg'.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            help="A checkpoint folder, exported file or pipeline.",
            show_default="the packaged pipeline",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("predictions"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each image, a line each.")] = False,
    device: Device = "auto",
) -> None:
    """What a model says about images, drawn on them and written as JSON: the text in them, where words are, or what class an image is of.

    Without a model, they are read by the small pipeline that comes with the package.

    Results are called like the image, and where two would be called the same, with its suffix and its folder. Nothing that compress has
    not written is written over. An image without an answer is named, the others are done, and the status is 1.

    Examples:

      compress predict photo.jpg

      compress predict scans --out found --json

      compress predict photo.jpg --model experiments/db_mv3_prune0.6_distill/distilled
    """
    from compress.predict import predict_files

    failed = False
    for found in predict_files(images, model, out, device):
        failed |= found.failed
        if as_json:
            typer.echo(json.dumps(found.record))
        if found.failed:
            refuse(found.line)
        elif not as_json:
            typer.echo(found.line)
    if failed:
        raise typer.Exit(1)


def time_artefacts(
    artefacts: Annotated[
        list[Path], typer.Argument(help="Exported files and checkpoint folders; the first is what others are compared with.")
    ],
    size: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="HEIGHTxWIDTH", help="Of the image, in pixels.", show_default="usual for the first artefact's model"
        ),
    ] = None,
    threads: Annotated[list[str] | None, typer.Option(help="Numbers of threads, such as 1,2.", show_default="1")] = None,
    rounds: Annotated[int | None, typer.Option(help="Timed calls of each, in turn.", show_default="20")] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="IMAGE|FOLDER", help="Time answers about these instead, from pixels on; may be repeated.", show_default=False),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:PRECISION]", help="Such as onnxruntime,openvino:bf16.", show_default="each artefact's own"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time files, checkpoints and pipelines in turn, and say which is fastest.

    Examples:

      compress benchmark files/onnx/model.onnx files_int8/onnx/model.onnx --input 320x320 --threads 1,2

      compress benchmark files/onnx/model.onnx --runtime onnxruntime,openvino,openvino:bf16

      compress benchmark experiments/ocr_small/float experiments/ocr_small/int8 --image scans
    """
    from compress.benchmark import benchmark

    found = benchmark(artefacts, size=size, threads=threads or ("1",), rounds=rounds, runtimes=runtime or (), images=image or ())
    if as_json:
        typer.echo(json.dumps(found))
        return
    from compress.report.table import print_benchmark

    print_benchmark(found)
