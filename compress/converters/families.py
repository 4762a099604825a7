"""The architectures that can be recognised."""

from __future__ import annotations

from collections.abc import Callable

from compress.converters import db
from compress.converters.lcnet_v3 import lcnet_v3_backbone, merged
from compress.converters.mobilenet_v3 import classifier_backbone, detector_backbone
from compress.converters.names import Family, Pair, Tensors
from compress.converters.resnet import resnet50_backbone

# PaddleOCR reads BGR and normalises it with ImageNet's constants of RGB, in that order; here they are in the order of R, G, B.
PICTURES = {"mean": [0.406, 0.456, 0.485], "std": [0.225, 0.224, 0.229]}
# PaddleOCR's configs of the detectors: DetResizeForTest by default, DBPostProcess.
DETECTION = {"short_side": 736, "bin_threshold": 0.3, "box_threshold": 0.6, "unclip_ratio": 1.5}
MAPS = ("probability", "threshold", "binary")


def detector(
    title: str,
    backbone: str,
    neck: str,
    channels: int,
    pairs: list[Pair],
    head_kernel: int = 3,
    prepare: Callable[[Tensors], Tensors] = dict,
) -> Family:
    """A DB detector of PP-OCR."""
    config = {"name": "db", "backbone": backbone, "neck": {"name": neck, "channels": channels}, **PICTURES}
    if head_kernel != 3:
        config["head_kernel"] = head_kernel
    return Family(title, config, DETECTION, (*pairs, *db.head()), MAPS, prepare=prepare)


FAMILIES = (
    detector("PP-OCR v2 mobile detector", "mobilenet_v3_large_ppocr", "db_fpn", 96, detector_backbone() + db.db_fpn()),
    detector("PP-OCRv3 mobile detector", "mobilenet_v3_large_ppocr", "rse_fpn", 96, detector_backbone() + db.rse_fpn()),
    detector("PP-OCRv4 mobile detector", "lcnet_v3", "rse_fpn", 96, lcnet_v3_backbone() + db.rse_fpn(), prepare=merged),
    detector("LK-PAN teacher with ResNet-50", "resnet50", "lkpan", 256, resnet50_backbone() + db.lkpan()),
    detector("LK-PAN teacher with ResNet-50 and a 7x7 head", "resnet50", "lkpan", 256, resnet50_backbone() + db.lkpan(), 7),
    Family(
        "PP-OCR v2.0 angle classifier",
        {"name": "angle"},
        {"short_side": 48},
        (*classifier_backbone(), Pair("classifier", "head.fc")),
        ("probability",),
        lines=True,
    ),
)
