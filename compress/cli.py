"""The command line: one function a command; parses, calls, prints. No logic lives here."""

from __future__ import annotations

import io
import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from compress import cli_artefacts, cli_data, cli_init, cli_recipes, cli_sweep, extras
from compress.cli_options import AsJson, Device, Experiments, Folder, Overrides, Recipe, named, refuse

RATIOS = "0.15,0.3,0.45,0.6,0.75,0.9"
GO_ON = ("run", "sweep", "sensitivity")  # commands that take up what an interrupted call has left

called: str | None = None  # the command, for what is said where it is interrupted

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.add_typer(cli_data.app, name="data")
app.command()(cli_recipes.recipes)
app.command()(cli_sweep.sweep)
app.command()(cli_init.init)
app.command("eval")(cli_artefacts.evaluate)
app.command()(cli_artefacts.predict)
app.command("benchmark")(cli_artefacts.time_artefacts)


@app.callback()
def root(
    context: typer.Context,
    allow_module: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            help="Let this Python module build models that artefacts name as MODULE:function; may be repeated.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Tell results and warnings, and nothing about work that goes on.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version, and exit.", is_eager=True, callback=lambda wanted: print_version(wanted))
    ] = False,
) -> None:
    """Make OCR models smaller and faster, and know what it cost.

    A recipe is a list of stages: load, train, prune, distill, quantize, export. Each takes a model and gives back a smaller or better one;
    the table says what every stage cost and kept, measured on the files that it left.

    Examples:

      compress run recipes/db_mv3_prune0.6_distill.yml

      compress eval experiments/db_mv3_prune0.6_distill/distilled

      compress predict photo.jpg --model experiments/db_mv3_prune0.6_distill/files_int8/openvino/model.xml
    """
    global called
    called = context.invoked_subcommand
    if quiet:
        from compress.progress import be_quiet

        be_quiet()
    if allow_module:
        from compress.outside import allowing

        context.with_resource(allowing(*allow_module))


@app.command()
def run(
    recipe: Recipe,
    override: Overrides = None,
    out: Folder = None,
    from_stage: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Do this stage, and all that start from it, again.")
    ] = None,
    time_again: Annotated[
        bool,
        typer.Option("--time-again", help="Take every latency anew, as after a run on a busy machine; all else stays."),
    ] = False,
    store: Annotated[
        str | None, typer.Option(help="Finished stages that several experiments share: a folder, or a URL.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop.")] = False,
    device: Device = "auto",
) -> None:
    """Run a recipe: skip what is done, resume what was cut off, print the table.

    Examples:

      compress run recipes/db_mv3_prune0.6_distill.yml -o seed=1 --out experiments/seed1

      compress run recipes/icdar2015/db_mv3_prune0.6_distill.yml -o data.root=data/icdar2015

      compress run icdar2015/db_mv3 -o data.root=data/icdar2015

      compress run recipes/db_mv3_prune0.6_distill.yml -o stages.pruned.ratio=0.5 --out experiments/half --store store

      torchrun --nproc_per_node 2 -m compress run recipes/db_resnet50.yml
    """
    from compress import experiment
    from compress.processes import main_process, several_processes
    from compress.progress import quiet
    from compress.rows import Timing, UnmetError
    from compress.session import folder_of

    if dry_run:
        for line in experiment.dry_run(recipe, override or (), out=out, redo_from=from_stage, store=store, device=device):
            typer.echo(line)
        return
    timing: Timing = "again" if time_again else "once"
    guess = not (several_processes() or quiet() or from_stage or time_again)
    try:
        rows = experiment.run(
            recipe, override or (), out=out, redo_from=from_stage, timing=timing, store=store, device=device, estimate=guess
        )
    except UnmetError as error:
        show(error.rows)
        raise
    if main_process():
        show(rows)
        typer.echo(f"Files, table.md, table.csv and ledger.jsonl are in {folder_of(recipe, out)}")


@app.command()
def plan(
    recipe: Recipe,
    override: Overrides = None,
    out: Folder = None,
    throughput: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Instead, images a second of a train stage: input, step, and both.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="Of --throughput: auto, cpu or cuda.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """What a recipe will do, without training: what is cached, every channel group before and after, sizes, and a guess at the time.

    Examples:

      compress plan recipes/db_mv3_prune0.6_distill.yml

      compress plan recipes/db_mv3_prune0.6_distill.yml -o stages.pruned.ratio=0.5 --json

      compress plan recipes/icdar2015/db_mv3.yml --throughput baseline -o stages.baseline.workers=4
    """
    from compress.plan import plan as make
    from compress.report.plan import print_plan, throughput_text

    if throughput:
        from compress.throughput import throughput as rates_of

        rates = rates_of(recipe, throughput, override or (), out=out, device=device)
        typer.echo(json.dumps(rates) if as_json else throughput_text(rates))
        return
    made = make(recipe, override or (), out=out)
    typer.echo(json.dumps(made)) if as_json else print_plan(made)


@app.command()
def sensitivity(
    source: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT|RECIPE", callback=named, help="A trained checkpoint, or a recipe with a prune stage.")
    ],
    ratios: Annotated[str | None, typer.Option(help="Shares of a group's channels to remove.", show_default=RATIOS)] = None,
    criterion: Annotated[
        str | None, typer.Option(help="What makes a channel important; as in a prune stage.", show_default="taylor")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="model or backbone.", show_default="model")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Validation images for the scores.", show_default="all")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="The loss of the outputs alone, no scores.")] = False,
    quantize: Annotated[bool, typer.Option("--quantize", help="Every layer alone in 8 bits instead.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="cores")] = None,
    data: Annotated[str | None, typer.Option(help="A data format instead of the experiment's data, such as icdar2015.")] = None,
    root_folder: Annotated[Path | None, typer.Option("--root", help="Where the data of --data are.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write.", show_default="<experiment>/sensitivity")] = None,
    override: Overrides = None,
) -> None:
    """Where a model can be pruned, or quantized: every channel group alone at several ratios, or every layer alone in 8 bits.

    Writes sensitivity.json (or sensitivity_quantize.json) and plots, and recommends how many channels to leave in each group.

    Each point is kept as it is measured; the same command goes on where an interrupted one stopped.

    Examples:

      compress sensitivity experiments/db_mv3_prune0.6_distill/baseline

      compress sensitivity recipes/db_mv3_prune0.6_distill.yml --ratios 0.3,0.6 --images 50 -o evaluate.short_side=320

      compress sensitivity experiments/db_mv3_prune0.6_distill/distilled --quantize

      compress sensitivity checkpoints/en_PP-OCRv3_det --data icdar2015 --root data/icdar2015 --out sensitivity
    """
    from compress import sensitivity as work
    from compress.data.formats import given
    from compress.errors import CompressError
    from compress.report.sensitivity import print_quantization, print_sensitivity

    config = given(data, root_folder)
    if quantize and (ratios or criterion or scope or workers):
        raise CompressError("--quantize looks at layers alone; leave out --ratios, --criterion, --scope and --workers beside it.")
    if quantize:
        found, folder = work.of_layers(source, overrides=override or (), data=config, images=images, fast=fast, out=out)
        print_quantization(found)
    else:
        settings = work.settings_from(ratios or RATIOS, criterion or "taylor", scope or "model", images, fast)
        found, folder = work.of_groups(source, overrides=override or (), data=config, settings=settings, out=out, workers=workers)
        print_sensitivity(found)
    typer.echo(f"Points and plots are in {folder}")


@app.command()
def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT|PIPELINE", help="A checkpoint folder; a quantized one becomes int8 files. Or a pipeline.")
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", "-f", help="onnx, openvino, torchscript, torch_export, ncnn; may be repeated.", show_default="the first two"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write.", show_default="<checkpoint>/files")] = None,
    images: Annotated[
        list[Path] | None, typer.Option("--image", help="Images to check the files on.", show_default="synthetic ones")
    ] = None,
) -> None:
    """Write files that other runtimes read, and check them against torch. A pipeline's files are copied, with a README that explains them.

    Example:

      compress export experiments/db_mv3_prune0.6_distill/distilled --format onnx --out exported

      compress export experiments/ocr_small/int8 --out reads
    """
    from compress.pipeline import is_pipeline

    if is_pipeline(checkpoint):
        from compress.ship import ship

        typer.echo(ship(checkpoint, out, has_options=bool(formats or images)))
        return
    from compress.exporters.write import export_checkpoint

    for line in export_checkpoint(checkpoint, tuple(formats or ("onnx", "openvino")), out or checkpoint / "files", images or ()):
        typer.echo(line)


@app.command("convert")
def convert_weights(
    file: Annotated[Path, typer.Argument(help="PP-OCR's .onnx export, or its .pdparams.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="CHECKPOINT", help="The checkpoint folder to write.")],
    images: Annotated[list[Path] | None, typer.Option("--image", help="Images to compare on.", show_default="synthetic ones")] = None,
    part: Annotated[str | None, typer.Option(help="Which of several models in a .pdparams, such as Student.", show_default=False)] = None,
    dictionary: Annotated[
        Path | None, typer.Option(help="A recogniser's characters, one a line.", show_default="the file's own, or a .yml beside it")
    ] = None,
) -> None:
    """Make a checkpoint of PP-OCR's weights, once both models have given the same maps.

    Example:

      compress convert ch_PP-OCRv3_det_infer.onnx -o checkpoints/ch_PP-OCRv3_det

      compress convert en_PP-OCRv3_rec_infer.onnx -o checkpoints/en_PP-OCRv3_rec --dictionary en_dict.txt
    """
    from compress.convert import convert_file

    for line in convert_file(file, out, images or (), part, dictionary):
        typer.echo(line)


@app.command()
def table(
    experiments: Experiments,
    stages: Annotated[str, typer.Option(help="Rows to show, by name: patterns such as baseline,files*/openvino.")] = "*",
    seeds: Annotated[bool, typer.Option("--seeds", help="They are seeds of one recipe: means and ranges, in Markdown.")] = False,
) -> None:
    """Print the table of one or several experiments again.

    Examples:

      compress table experiments/db_mv3_prune0.6_distill experiments/seed1

      compress table experiments/pan_resnet18 experiments/pse_resnet18 --stages baseline,distilled

      compress table --seeds experiments/pruning_comparison/seed0 experiments/pruning_comparison/seed1
    """
    from compress import ledger

    ledgers = [ledger.chosen(ledger.read(folder), stages.split(",")) for folder in experiments]
    if seeds:
        from compress.report.seeds import seeds_table

        typer.echo(seeds_table(ledgers))
    else:
        show(ledger.together(ledgers, experiments))


@app.command()
def report(
    experiments: Experiments,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
    plots: Annotated[Path | None, typer.Option(help="Also write every plot into this folder, as PNG and SVG.", show_default=False)] = None,
    images: Annotated[int, typer.Option(min=0, max=100, help="Validation images to show every stage's detections on; 0 for none.")] = 4,
) -> None:
    """Write one self-contained HTML page: result, table, plots, detections, provenance; of a sweep, its front and its trials.

    Examples:

      compress report experiments/db_mv3_prune0.6_distill

      compress report experiments/seed0 experiments/seed1 -o seeds.html --plots plots --images 0

      compress report experiments/sweeps/ratios -o ratios.html
    """
    from compress.report.page import write_report
    from compress.sweeps.trials import is_sweep

    if any(is_sweep(folder) for folder in experiments):
        from compress.report.sweep import write_sweep

        for path in write_sweep(experiments, out):
            typer.echo(path)
        return
    for path in write_report(experiments, out, images=images, plot_folder=plots):
        typer.echo(path)


def print_version(wanted: bool) -> None:
    """The installed version, and the end."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"compress {version('compress-ocr')}")
        raise typer.Exit


def show(rows: list) -> None:
    """Print a ledger's table."""
    from compress.report.table import print_table

    print_table(rows)


def main() -> None:
    """Run the command line. Whatever goes wrong is one sentence and status 1, an interruption status 130."""
    from compress.errors import CompressError
    from compress.last_resort import sentence_for

    signal.signal(signal.SIGINT, interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files are bytes, and not all of them are text
    try:
        with extras.told("This command"):
            app()
    except CompressError as error:
        sys.exit(refuse(str(error)))
    except Interrupted:
        refuse(f"Interrupted.{' Nothing finished is lost: the same command carries on from here.' if called in GO_ON else ''}")
        sys.exit(130)
    except Exception as error:
        sys.exit(refuse(sentence_for(error)))


class Interrupted(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt, which typer would turn into "Aborted!" before `main` sees it."""


def interrupt(_signal: int, _frame: object) -> None:
    """Stop at once; what is half written has another name until it is whole."""
    raise Interrupted


if __name__ == "__main__":
    main()
