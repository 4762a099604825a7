"""An evaluation as people read it."""

from __future__ import annotations

from typing import Any


def evaluation_text(found: dict[str, Any]) -> str:
    """What :func:`compress.evaluation.assess.assess` gives, in words."""
    lines = [f"{found['artefact']} ({found['runtime']}), {found['images']} {found['split']} pictures"]
    for label, score in (("fixed thresholds", found), ("tuned on validation", found["tuned"])):
        if score:
            thresholds = ", ".join(f"{name} {value}" for name, value in score["thresholds"].items())
            lines.append(f"  {label}: P {score['precision']:.4f}  R {score['recall']:.4f}  Hmean {score['hmean']:.4f}  ({thresholds})")
    return "\n".join(lines)
