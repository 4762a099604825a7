"""Stage `export`: files that other runtimes read, each checked against torch before it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compress.stages.stage import Stage

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


class Export(Stage):
    """Write the parent as it is: a float model to fp32 files, a quantized one to files with true int8 weights.

    formats: `onnx` (ONNX Runtime), `openvino` (IR: .xml and .bin).
    check_images: validation pictures on which each file's maps must match torch's. A file that does not match fails the stage.
    """

    kind: ClassVar[str] = "export"
    gives_model: ClassVar[bool] = False

    formats: tuple[Literal["onnx", "openvino"], ...] = Field(("onnx", "openvino"), min_length=1)
    check_images: int = Field(8, ge=1)

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves one file, or pair of files, for each format."""
        from compress.exporters.write import write_files

        split = lab.split("val")
        images = [split[index].image for index in range(min(self.check_images, len(split)))]
        for name, path, facts in write_files(model, self.formats, lab.folder, images):
            lab.add(name, path, **facts)
        return model
