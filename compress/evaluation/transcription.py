"""How well texts were read: exactly, but for case and punctuation, and by their edit distance."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

KEPT = frozenset("0123456789abcdefghijklmnopqrstuvwxyz")


def text_scores(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Scores of (found, true) texts, each in 0..1, and 0 of no texts.

    accuracy: the share of texts that are equal as they are written. folded: of the true texts that have letters or digits of ASCII, the
    share that is equal once capitals are lower-case and all else is left out, as benchmarks of scene text are scored (Baek et al. 2019,
    "What Is Wrong With Scene Text Recognition Model Comparisons?"). similarity: 1-NED, the mean of 1 - edit distance / length of the
    longer text (Zhang et al. 2019, "ICDAR 2019 Robust Reading Challenge on Reading Chinese Text on Signboard").
    """
    if not pairs:
        return {"accuracy": 0.0, "folded": 0.0, "similarity": 0.0}
    plain = [(folded(found), folded(true)) for found, true in pairs if folded(true)]
    return {
        "accuracy": sum(found == true for found, true in pairs) / len(pairs),
        "folded": sum(found == true for found, true in plain) / max(1, len(plain)),
        "similarity": sum(Levenshtein.normalized_similarity(found, true) for found, true in pairs) / len(pairs),
    }


def folded(text: str) -> str:
    """The text in lower case without what is neither a letter nor a digit of ASCII."""
    return "".join(character for character in text.lower() if character in KEPT)
