"""An evaluation as people read it."""

from __future__ import annotations

from typing import Any


def evaluation_text(found: dict[str, Any]) -> str:
    """What :func:`compress.assess.assess` gives, in words."""
    if "accuracy" in found:
        return accuracy_text(found)
    lines = [f"{found['artefact']} ({found['runtime']}), {found['images']} {found['split']} pictures"]
    for label, score in (("fixed thresholds", found), ("tuned on validation", found["tuned"])):
        if score:
            thresholds = ", ".join(f"{name} {value}" for name, value in score["thresholds"].items())
            lines.append(f"  {label}: P {score['precision']:.4f}  R {score['recall']:.4f}  Hmean {score['hmean']:.4f}  ({thresholds})")
    return "\n".join(lines)


def accuracy_text(found: dict[str, Any]) -> str:
    """The same of a classifier, with a line for each class."""
    counts = [("all", found), *found["classes"].items()]
    shares = (f"  {label}: {count['right'] / count['images']:.4f}  ({count['right']} of {count['images']})" for label, count in counts)
    return "\n".join([f"{found['artefact']} ({found['runtime']}), accuracy on the pictures of {found['data']}", *shares])
