"""Names of PaddleOCR's necks and of its DB head."""

from __future__ import annotations

from compress.converters.mobilenet_v3 import MOBILE_SLOPE
from compress.converters.names import Pair, conv_bn, squeeze

COARSEST_FIRST = (3, 2, 1, 0)


def db_fpn() -> list[Pair]:
    """DBFPN: its layers are numbered by the level's power of two."""
    laterals = [Pair(f"neck.laterals.{level}", f"neck.in{level + 2}_conv") for level in COARSEST_FIRST]
    return laterals + [Pair(f"neck.smooths.{level}", f"neck.p{level + 2}_conv") for level in COARSEST_FIRST]


def rse_fpn() -> list[Pair]:
    """RSEFPN."""
    pairs = []
    for ours, theirs in (("laterals", "ins_conv"), ("smooths", "inp_conv")):
        for level in COARSEST_FIRST:
            pairs.append(Pair(f"neck.{ours}.{level}.conv", f"neck.{theirs}.{level}.in_conv"))
            pairs += squeeze(f"neck.{ours}.{level}.squeeze", f"neck.{theirs}.{level}.se_block", MOBILE_SLOPE)
    return pairs


def lkpan() -> list[Pair]:
    """LKPAN in its large mode."""
    down = [(ours, theirs, COARSEST_FIRST) for ours, theirs in (("laterals", "ins_conv"), ("reduces", "inp_conv"))]
    up = [("downs", "pan_head_conv", (0, 1, 2)), ("smooths", "pan_lat_conv", (0, 1, 2, 3))]
    return [Pair(f"neck.{ours}.{level}", f"neck.{theirs}.{level}") for ours, theirs, levels in (*down, *up) for level in levels]


def lkpan_intracl() -> list[Pair]:
    """LKPAN in its large mode with IntraCL, which runs on all levels after all of them are smooth."""
    pairs = [Pair(pair.ours + ".0" * pair.ours.startswith("neck.smooths."), pair.theirs) for pair in lkpan()]
    return pairs + [pair for level in COARSEST_FIRST for pair in intracl(f"neck.smooths.{level}.1", f"neck.incl{level + 1}")]


def intracl(ours: str, theirs: str) -> list[Pair]:
    """IntraCLBlock."""
    rounds = [
        Pair(f"{ours}.rounds.{number}.{place}", f"{theirs}.{layer}")
        for number, size in enumerate((7, 5, 3))
        for place, layer in enumerate((f"c_layer_{size}x{size}", f"v_layer_{size}x1", f"q_layer_1x{size}"))
    ]
    ends = Pair(f"{ours}.restore.0", f"{theirs}.conv1x1_return_channel"), Pair(f"{ours}.restore.1", f"{theirs}.bn")
    return [Pair(f"{ours}.reduce", f"{theirs}.conv1x1_reduce_channel"), *rounds, *ends]


def head() -> list[Pair]:
    """DBHead: the branch of the probability, then that of the threshold, which files for inference may lack."""
    return branch("probability", "head.binarize") + branch("threshold", "head.thresh")


def local_head() -> list[Pair]:
    """PFHeadLocal in its large mode: DBHead with a second look at the probability."""
    local = [*conv_bn("probability.local", "head.cbn_layer.last_3"), Pair("probability.last", "head.cbn_layer.last_1")]
    return branch("probability", "head.binarize") + local + branch("threshold", "head.thresh")


def branch(ours: str, theirs: str) -> list[Pair]:
    """One branch of the head."""
    parts = {"conv.0": "conv1", "conv.1": "conv_bn1", "up1.0": "conv2", "up1.1": "conv_bn2", "up2": "conv3"}
    return [Pair(f"{ours}.{part}", f"{theirs}.{name}") for part, name in parts.items()]
