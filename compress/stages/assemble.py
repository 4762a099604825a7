"""Stage `assemble`: a detector, an angle classifier and a recogniser become one pipeline that reads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compress.exporters.formats import HoldsInt8
from compress.stages.stage import Stage

if TYPE_CHECKING:
    import numpy as np

    from compress.checkpoint import Model
    from compress.lab import Lab


class Assemble(Stage):
    """Put exported models together in one folder, see `compress.pipeline`; the recipe's `evaluate` says what lies between them.

    detector, classifier, recogniser: each a recipe, whose last model it is, or `recipe.yml:stage`, for another one of it, which is run
    first where it has not been; a checkpoint folder; or an exported file. The classifier may be left out.
    format: of the files that checkpoints become; an exported file stays what it is. check_images: validation images on which each file's
    outputs must match torch's, as many as in an export stage; of words cut from them for a classifier and a recogniser.
    """

    kind: ClassVar[str] = "assemble"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("torch", "nncf", "onnx", "openvino")
    needs_parent: ClassVar[bool] = False
    gives_model: ClassVar[bool] = False
    others_have_rows: ClassVar[bool] = False  # they are judged by other metrics, in tables of their own
    others_share_data: ClassVar[bool] = False

    detector: str = Field(min_length=1)
    classifier: str | None = Field(None, min_length=1)
    recogniser: str = Field(min_length=1)
    format: HoldsInt8 = "openvino"
    check_images: int | None = Field(None, ge=1)

    def parts(self) -> dict[str, str]:
        """Part -> what is named for it."""
        return {part: name for part in ("detector", "classifier", "recogniser") if (name := getattr(self, part))}

    def other_models(self) -> tuple[str, ...]:
        """The parts that are no files yet."""
        return tuple(dict.fromkeys(name for name in self.parts().values() if not is_file(name)))

    def exported_files(self) -> tuple[str, ...]:
        """The parts that are exported files."""
        return tuple(dict.fromkeys(name for name in self.parts().values() if is_file(name)))

    def splits(self) -> tuple[str, ...]:
        """Validation, on which each file is checked."""
        return ("val",)

    def reads(self) -> tuple[str, ...]:
        """What lies between the parts."""
        return ("evaluate",)

    def check(self, model: Model) -> None:
        """Refuse a model that is no pipeline, and exported files that cannot be opened or are models of another kind."""
        from compress.errors import CompressError
        from compress.pipeline import MODEL, check_part
        from compress.predictor import of_file

        if model.config["name"] != MODEL["name"]:
            raise CompressError(f"a pipeline is assembled in a recipe of its own, with `model: {{name: {MODEL['name']}}}`.")
        for part, name in self.parts().items():
            if is_file(name):
                check_part(part, name, of_file(Path(name), 1).algorithm)

    def check_others(self, _model: Model, others: Mapping[str, Model]) -> None:
        """Refuse models of another kind."""
        from compress.pipeline import check_part

        for part, name in self.parts().items():
            if not is_file(name):
                check_part(part, name, others[name].algorithm)

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves a folder for each part, and the description of the pipeline."""
        from compress import pipeline
        from compress.predictor import of_file

        files = {part: self.exported(part, name, lab) for part, name in self.parts().items()}
        alphabet = of_file(files["recogniser"], 1).algorithm.alphabet
        pipeline.write(lab.folder, files, lab.recipe.evaluate, alphabet.characters if alphabet else None)
        lab.add("", ".")
        return model

    def exported(self, part: str, name: str, lab: Lab) -> Path:
        """The file of a part in the lab's folder: a copy, or written of a checkpoint."""
        from compress.exporters.write import write_files
        from compress.pipeline import files_of

        folder = lab.folder / part
        if is_file(name):
            folder.mkdir(parents=True, exist_ok=True)
            for copied in files_of(Path(name)):
                shutil.copy(copied, folder)
            return folder / Path(name).name
        ((_, file, _),) = write_files(lab.open_teacher(name), [self.format], folder, self.images(part, lab))
        return folder / file

    def images(self, part: str, lab: Lab) -> Sequence[np.ndarray]:
        """A few images such as the part is shown: of the validation split, or words cut from them."""
        from compress.data.lines.crops import crops
        from compress.exporters.verify import enough

        split = lab.split("val")
        if part == "detector":
            return enough((split[index].image for index in range(len(split))), self.check_images)
        return enough((image for _, image in crops(split, [])), self.check_images)


def is_file(name: str) -> bool:
    """Whether a part is named by an exported file, and not by a recipe or a checkpoint folder."""
    from compress.runtimes import FILES

    return Path(name).suffix in FILES
