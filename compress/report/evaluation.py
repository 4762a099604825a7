"""An evaluation as people read it."""

from __future__ import annotations

from typing import Any

from compress.report.wording import printable, scores_text
from compress.tasks import TASKS


def evaluation_text(found: dict[str, Any]) -> str:
    """What :func:`compress.assess.assess` gives, in words."""
    task = TASKS[found["task"]]
    lines = [f"{found['artefact']} ({found['runtime']}), {found['images']} {found['split']} images"]
    for label, part in (("fixed settings", found), ("tuned on validation", found["tuned"])):
        if part:
            settings = ", ".join(f"{name} {value}" for name, value in part["settings"].items())
            lines.append(f"  {label}: {scores_text(task, part['scores'])}  ({settings})")
    if found["stored"]:
        shown = ", ".join(f"{name} {value}" for name, value in found["tuned"]["shown"].items())
        lines.append(f"The tuned settings are written to {found['stored']}; they hold for images shown with {shown} alone.")
    return printable("\n".join(lines))
