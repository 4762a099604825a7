"""Stage `export`: files that other runtimes read, each checked against torch before it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from compress.exporters.formats import Format
from compress.stages.stage import Stage

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


class Export(Stage):
    """Write the parent as it is: a float model to fp32 files, a quantized one to files with true int8 weights.

    formats: `onnx` (ONNX Runtime), `openvino` (IR: .xml and .bin), and for float models `torchscript`, `ncnn` (.param and .bin) and
    `torch_export` (.pt2). The last is checked when it is written and never opened, so it has no row: name another beside it.
    check_images: validation images on which each file's outputs must match torch's; 8 unless said, and up to 64 small ones, such as lines
    of text. A file that does not match fails the stage.
    """

    kind: ClassVar[str] = "export"
    version: ClassVar[int] = 5
    libraries: ClassVar[tuple[str, ...]] = ("torch", "nncf", "onnx", "openvino")
    gives_model: ClassVar[bool] = False

    formats: tuple[Format, ...] = Field(("onnx", "openvino"), min_length=1)
    check_images: int | None = Field(None, ge=1)

    @field_validator("formats")
    @classmethod
    def some_can_be_measured(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        """A stage has at least one row."""
        if set(formats) == {"torch_export"}:
            raise ValueError("a .pt2 file is never opened, so nothing could be measured; name another format beside torch_export")
        return formats

    def files(self) -> tuple[Format, ...]:
        """The `formats`."""
        return self.formats

    def splits(self) -> tuple[str, ...]:
        """Validation, on which each file is checked."""
        return ("val",)

    def check(self, model: Model) -> None:  # noqa: ARG002
        """Refuse a format whose converter is not installed."""
        if "ncnn" in self.formats:
            from compress.exporters.ncnn import converter

            converter()

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves one file, or pair of files, for each format."""
        from compress.exporters.verify import enough
        from compress.exporters.write import write_files

        split = lab.split("val")
        images = enough((split[index].image for index in range(len(split))), self.check_images)
        with lab.bar(f"{lab.name}: files compared with torch", len(images) * len(self.formats)) as bar:
            for name, path, facts in write_files(model, self.formats, lab.folder, images, bar):
                if name != "torch_export":
                    lab.add(name, path, **facts)
        return model
