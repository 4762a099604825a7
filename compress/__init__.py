"""A model compression workbench for OCR models.

>>> rows = compress.run("recipes/db_mv3_prune0.6_distill.yml", ["seed=1"])
>>> text = compress.load().predict("photo.jpg").text  # the packaged pipeline
>>> words = compress.load("experiments/db_mv3_prune0.6_distill/distilled").predict(image)
>>> words = compress.load("experiments/mine/distilled", modules=["my_module"]).predict(image)  # a model of my own, docs/third_party.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compress.experiment import run
    from compress.predictor import open_predictor as load

__all__ = ["load", "run"]


def __getattr__(name: str):
    """Import what a name needs when it is first used, so that `import compress` costs nothing."""
    if name == "run":
        from compress import extras

        with extras.told("compress.run"):
            from compress.experiment import run
        return run
    if name == "load":
        from compress.predictor import open_predictor

        return open_predictor
    raise AttributeError(f"module 'compress' has no attribute '{name}'")
