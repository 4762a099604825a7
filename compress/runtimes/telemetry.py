"""NNCF and OpenVINO report their use over the network unless told not to; this keeps both silent."""

from __future__ import annotations

import sys


def forbid_telemetry() -> None:
    """Call before each import of `nncf` or `openvino`.

    Both import `openvino_telemetry` optionally and have a stub for machines without it. NNCF has no documented switch, and
    OpenVINO sends its first event while it is imported; so the package is made unimportable in this process.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
