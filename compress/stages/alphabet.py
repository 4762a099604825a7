"""Stage `alphabet`: keep only the characters that one needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import field_validator

from compress.data.lines.alphabets import from_file
from compress.errors import CompressError
from compress.models.alphabet import Alphabet, Written, alphabet_of, written_as
from compress.stages.stage import Stage

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


class KeepCharacters(Stage):
    """Cut the classes of a recogniser, of guides that it is trained with too, down to some characters.

    The scores of the characters that stay are what they were, before the softmax. Their order is that in which they are wanted, so that
    of two models with the same characters one can teach the other.

    characters: a name such as `en` or `digits`, `{characters: abc}`, or `{file: dictionary.txt}`, one character a line. Those that the
    model does not know are left out; it must know one.
    """

    kind: ClassVar[str] = "alphabet"
    version: ClassVar[int] = 2

    characters: Written

    @field_validator("characters", mode="before")
    @classmethod
    def written_out(cls, characters: Any) -> Any:
        """The characters themselves, so that they and no name are in the key and in the recipe that is kept."""
        try:
            if isinstance(characters, Mapping) and list(characters) == ["file"]:
                return from_file(characters["file"])
            return written_as(alphabet_of(characters)) if isinstance(characters, str | Mapping) else characters
        except (CompressError, ValueError) as error:
            raise ValueError(str(error).replace("model.alphabet", "characters")) from None

    def needs_float(self) -> bool:
        """Always."""
        return True

    def splits(self) -> tuple[str, ...]:
        """It looks at no image."""
        return ()

    def architecture(self, config: dict[str, Any]) -> dict[str, Any]:
        """The parent's with fewer characters."""
        from compress.outside import build

        alphabet = build(config).alphabet
        if alphabet is None:
            raise CompressError("the model reads no text, so it has no characters to keep.")
        return {**config, "alphabet": written_as(self.kept(alphabet))}

    def kept(self, alphabet: Alphabet) -> Alphabet:
        """Those characters of `alphabet` that are wanted. Raises CompressError where there is none."""
        wanted = alphabet_of(self.characters).characters
        characters = "".join(alphabet.characters[place - 1] for place in places(alphabet, wanted))
        if not characters:
            raise CompressError(f"characters: the model knows none of {wanted!r}; name some of its own.")
        return Alphabet(characters)

    def check(self, model: Model) -> None:
        """Refuse a model without an alphabet, and characters of which it knows none."""
        self.architecture(model.config)

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves the smaller model in the folder."""
        from compress.checkpoint import Model
        from compress.outside import build
        from compress.pruning.classes import keep_classes

        alphabet = model.algorithm.alphabet
        assert alphabet is not None  # `check` has asked
        config = self.architecture(model.config)
        keep_classes(model, alphabet, places(alphabet, alphabet_of(self.characters).characters))
        result = Model(config, model.network, build(config), model.evaluate)
        lab.save(result, lab.folder)
        lab.add("", ".")
        return result


def places(alphabet: Alphabet, wanted: str) -> list[int]:
    """The classes of those characters of `wanted` that an alphabet has, in their order.

    Of a space that is there twice it is the one that texts are encoded by: the other was never trained.
    """
    return [alphabet.numbers[character] for character in dict.fromkeys(wanted) if character in alphabet.numbers]
