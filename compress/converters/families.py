"""The architectures that can be recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compress.converters import db, ppocr
from compress.converters.craft import craft_layers
from compress.converters.lcnet_v3 import lcnet_v3_backbone, merged
from compress.converters.mobilenet_v3 import classifier_backbone, detector_backbone
from compress.converters.names import Family, Pair, Tensors
from compress.converters.pphgnet import pphgnet_backbone
from compress.converters.resnet import DEPTHS_18, DEPTHS_50, resnet50_backbone, resnet_vd_backbone

# PaddleOCR reads BGR and normalises it with ImageNet's constants of RGB, in that order; here they are in the order of R, G, B.
NORMALISED = {"mean": [0.406, 0.456, 0.485], "std": [0.225, 0.224, 0.229]}
# PaddleOCR's configs of the detectors: DetResizeForTest by default, DBPostProcess.
DETECTION = {"short_side": 736, "bin_threshold": 0.3, "box_threshold": 0.6, "unclip_ratio": 1.5}
MAPS = ("probability", "threshold", "binary")
HEAD = db.head()
# PP-LCNetV4's blocks with squeeze-and-excite, a stage each.
V4_TINY = ((True, False), (True, False), (True, False, False))
V4_DETECTOR = ((True, False), (True, False), (True, False, True, False), (True, False))
V4_SMALL = ((True, False, False), (True, False, True, False, True, False), (True, False))
RSE_FPN, LKPAN = {"name": "rse_fpn", "channels": 96}, {"name": "lkpan", "channels": 256}


def detector(
    title: str,
    backbone: str,
    neck: Mapping[str, Any],
    pairs: list[Pair],
    head: Sequence[Pair] = HEAD,
    prepare: Callable[[Tensors], Tensors] = dict,
    **options: Any,
) -> Family:
    """A DB detector of PP-OCR. options: further keys of the `model` section."""
    config = {"name": "db", "backbone": backbone, "neck": neck, **NORMALISED, **options}
    return Family(title, config, DETECTION, (*pairs, *head), MAPS, prepare=prepare)


def recogniser(title: str, backbone: str, sequence: str | Mapping[str, Any], pairs: list[Pair]) -> Family:
    """A recogniser of PP-OCR, whose alphabet comes with the file. PaddleOCR pads lines to 320 pixels."""
    config = {"name": "svtr_lcnet", "backbone": backbone, "sequence": sequence}
    return Family(title, config, {"height": 48, "width": 320}, pairs, ("probability",), lines=True)


def v6_detector(size: str, channels: int, kernel: int) -> Family:
    """A detector of PP-OCRv6, with the thresholds of its settings."""
    config = {"name": "db", "backbone": f"lcnet_v4_{size}", "neck": {"name": "separable_rse_fpn", "channels": channels, "kernel": kernel}}
    layers = ppocr.lcnet_v4("backbone", V4_DETECTOR, ppocr.branched_stem("backbone")) + ppocr.separable_rse_fpn() + ppocr.merged_head()
    evaluate = {**DETECTION, "bin_threshold": 0.2, "box_threshold": 0.4, "unclip_ratio": 1.4}
    return Family(f"PP-OCRv6 {size} detector", {**config, **NORMALISED}, evaluate, layers, MAPS)


FAMILIES = (
    detector(
        "PP-OCR v2 mobile detector", "mobilenet_v3_large_ppocr", {"name": "db_fpn", "channels": 96}, detector_backbone() + db.db_fpn()
    ),
    detector("PP-OCRv3 mobile detector", "mobilenet_v3_large_ppocr", RSE_FPN, detector_backbone() + db.rse_fpn()),
    Family(
        "PP-OCR v2.0 angle classifier",
        {"name": "angle"},
        {"size": [48, 192]},
        (*classifier_backbone(), Pair("classifier", "head.fc")),
        ("probability",),
        lines=True,
    ),
    detector("PP-OCRv4 mobile detector", "lcnet_v3", RSE_FPN, lcnet_v3_backbone() + db.rse_fpn(), prepare=merged),
    detector(
        "PP-OCR v2.0 server detector",
        "resnet18_vd",
        {"name": "db_fpn", "channels": 256},
        resnet_vd_backbone(DEPTHS_18, convolutions=2) + db.db_fpn(),
    ),
    detector(
        "PP-OCRv3 teacher (ResNet50_vd, LK-PAN, 7x7 head)",
        "resnet50_vd",
        LKPAN,
        resnet_vd_backbone(DEPTHS_50, convolutions=3) + db.lkpan(),
        head_kernel=7,
    ),
    detector(
        "PP-OCRv4 server detector",
        "pphgnet_small",
        {**LKPAN, "intracl": True},
        pphgnet_backbone() + db.lkpan_intracl(),
        db.local_head(),
        local=True,
    ),
    detector("LK-PAN teacher with ResNet-50", "resnet50", LKPAN, resnet50_backbone() + db.lkpan()),
    detector("LK-PAN teacher with ResNet-50 and a 7x7 head", "resnet50", LKPAN, resnet50_backbone() + db.lkpan(), head_kernel=7),
    v6_detector("tiny", 64, 5),
    v6_detector("small", 96, 7),
    recogniser("PP-OCRv3 recogniser", "mobilenet_v1_enhance", "svtr", ppocr.mobilenet_v1_enhance() + ppocr.svtr()),
    recogniser(
        "PP-OCRv4 or v5 mobile recogniser",
        "lcnet_v3_lines",
        {"name": "svtr", "outputs": 120, "tall": False},
        ppocr.lcnet_v3_lines() + ppocr.svtr(),
    ),
    recogniser(
        "PP-OCRv6 small recogniser",
        "lcnet_v4_lines_small",
        "light_svtr",
        ppocr.lcnet_v4("backbone.trunk", V4_SMALL, ppocr.branched_stem("backbone.trunk")) + ppocr.light_svtr(),
    ),
    recogniser(
        "PP-OCRv6 tiny recogniser",
        "lcnet_v4_lines_tiny",
        "separable",
        ppocr.lcnet_v4("backbone.trunk", V4_TINY, ppocr.plain_stem("backbone.trunk")) + ppocr.separable(),
    ),
    Family(
        "CRAFT",
        {"name": "craft"},
        {"short_side": 736},
        craft_layers(),
        ("region_scores", "affinity_scores"),
        rgb=True,
        folded=True,
    ),
)
