"""What every artefact answers about the same images, drawn on them. Every function gives HTML; all text from files is escaped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

from compress.report.collect import Experiment
from compress.report.gallery import file_name
from compress.report.wording import scores_text
from compress.tasks import TASKS
from compress.tasks.task import Task

Shapes = Sequence[Mapping[str, Any]]
# What a line stands for, by its class in page.css.
MEANINGS = {"truth": "ground truth", "ignored": "ground truth that does not count", "found": "found"}


def answers(experiment: Experiment, compared: dict[str, Any]) -> str:
    """Every artefact's answers on the images that changed the most. compared: what :func:`compress.report.compare.compare` gives.

    Where something is outlined, every artefact has its own view of an image; else the image stands above a list of answers.
    """
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in compared["notes"])
    if not compared["images"]:
        return notes
    task, images = TASKS[compared["task"]], compared["images"]
    kinds = {kind for image in images for shapes in shapes_of(image) for kind, _ in shapes}
    drawn = shots if kinds else listed
    return notes + key(kinds) + "".join(drawn(file_name(experiment.name, str(place)), image, task) for place, image in enumerate(images))


def key(kinds: Collection[str]) -> str:
    """What the lines stand for, of the kinds that occur."""
    lines = (
        f'<li><svg viewBox="0 0 32 14" aria-hidden="true"><line class="{kind}" x1="3" x2="29" y1="7" y2="7"/></svg> {meaning}</li>'
        for kind, meaning in MEANINGS.items()
        if kind in kinds
    )
    return f'<ul class="key">{"".join(lines)}</ul>' if kinds else ""


def shapes_of(image: Mapping[str, Any]) -> list[list[tuple[str, Mapping[str, Any]]]]:
    """The outlines of the ground truth and of every answer, each with its kind."""
    truth = [("truth" if shape["counts"] else "ignored", shape) for shape in image["truth"] if shape["outline"]]
    return [truth, *([("found", shape) for shape in found["shapes"] if shape["outline"]] for found in image["found"].values())]


def shots(identity: str, image: Mapping[str, Any], task: Task) -> str:
    """One image by every artefact; its pixels are in the page once."""
    width, height = size_of(image)
    store = f'<svg class="store" aria-hidden="true">{pixels(image, identity)}</svg>'
    truth, *drawn = ["".join(outline(kind, shape) for kind, shape in shapes) for shapes in shapes_of(image)]
    figures = [
        shot(identity, place, (width, height), truth + found, stage, *words(answer, task))
        for place, (found, (stage, answer)) in enumerate(zip(drawn, image["found"].items(), strict=True))
    ]
    return f'{head(image)}{store}<div class="shots">{"".join(figures)}</div>'


def listed(identity: str, image: Mapping[str, Any], task: Task) -> str:
    """One image with what every artefact says about it below."""
    width, height = size_of(image)
    alt = escape(str(image["name"]), quote=True)
    lines = (
        f'<tr><th scope="row">{escape(stage)}</th><td>{escape("; ".join(words(answer, task)))}</td></tr>'
        for stage, answer in image["found"].items()
    )
    return (
        f'{head(image)}<svg class="alone" viewBox="0 0 {width} {height}" role="img" aria-label="{alt}">{pixels(image, identity)}</svg>'
        f'<table class="facts"><tbody>{"".join(lines)}</tbody></table>'
    )


def head(image: Mapping[str, Any]) -> str:
    """An image's name, and what the ground truth says about it as a whole."""
    said = captions(image["truth"])
    truth = f'<p class="soft">Ground truth: {escape(said)}</p>' if said else ""
    return f"<h4>{escape(image['name'])}</h4>{truth}"


def size_of(image: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height, in the image's own pixels."""
    return int(image["width"]), int(image["height"])


def pixels(image: Mapping[str, Any], identity: str) -> str:
    """The image itself, as an element of an SVG."""
    width, height = size_of(image)
    return f'<image id="{identity}" width="{width}" height="{height}" href="data:image/jpeg;base64,{escape(image["jpeg"])}"/>'


def captions(shapes: Shapes) -> str:
    """What is said about the image as a whole."""
    return ", ".join(shape["caption"] for shape in shapes if shape["caption"] and not shape["outline"])


def outline(kind: str, shape: Mapping[str, Any]) -> str:
    """An outline with a dark one below it, so that it shows on any image; its caption appears where a mouse points at it."""
    path = " ".join(f"{float(x):g},{float(y):g}" for x, y in shape["outline"])
    title = f"<title>{escape(shape['caption'])}</title>" if shape["caption"] else ""
    return f'<polygon class="halo" points="{path}"/><polygon class="{kind}" points="{path}">{title}</polygon>'


def words(answer: Mapping[str, Any], task: Task) -> tuple[str, str]:
    """An answer in words, and its scores on this image."""
    told = ", ".join(part for part in (answer["told"], captions(answer["shapes"])) if part)
    return told, scores_text(task, answer["scores"])


def shot(identity: str, place: int, size: tuple[int, int], outlines: str, stage: str, told: str, scores: str) -> str:
    """One artefact's view of an image; a click shows it in its own pixels, above the page, and another click puts it back."""
    alt = escape(f"{stage}: {told}; {scores}", quote=True)
    box, name = f'viewBox="0 0 {size[0]} {size[1]}"', f"{identity}-{place}"
    return (
        f'<figure id="{name}"><a class="open" href="#{name}-whole"><svg {box} role="img" aria-label="{alt}"><use href="#{identity}"/>'
        f'<g id="{name}-found">{outlines}</g></svg></a>'
        f"<figcaption><b>{escape(stage)}</b><br>{escape(told)}<br>{escape(scores)}</figcaption>"
        f'<a class="whole" id="{name}-whole" href="#{name}" aria-label="Close"><svg {box} width="{size[0]}" height="{size[1]}">'
        f'<use href="#{identity}"/><use href="#{name}-found"/></svg></a></figure>'
    )
