"""The report cleaner of the R2Gen family with its faults, for benchmark parity and nothing else.

Papers of this family score text after this cleaning, so comparable figures need it. It destroys
decimals ("1.5 cm" becomes "15 cm"), eats "1. " inside "T1. ", keeps empty sentences, and its references are
cut short. No text of the product passes through here. Rewritten from the behaviour of R2Gen's
``modules/tokenizers.py`` and R2GenGPT's ``dataset/data_helper.py``; the tests hold recorded outputs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Variant = Literal["iu_xray", "mimic_cxr", "mimic_cxr_r2gen"]
"""``iu_xray``: R2Gen and R2GenGPT alike. ``mimic_cxr``: R2GenGPT. ``mimic_cxr_r2gen``: R2Gen."""

MAX_LENGTH: dict[Variant, int] = {"iu_xray": 60, "mimic_cxr": 100, "mimic_cxr_r2gen": 100}
THRESHOLD: dict[Variant, int] = {"iu_xray": 3, "mimic_cxr": 10, "mimic_cxr_r2gen": 10}

# In the older class ":-[" is a range: it deletes everything from ":" to "[" in ASCII (capitals are gone by
# then). The newer one names its characters and spares ":<=>@".
_DELETED_RANGE = re.compile(r"[.,?;*!%^&_+()\]{}:-\[]")
_DELETED_PLAIN = re.compile(r"[.,?;*!%^&_+()\[\]{}]")
_QUOTES_AND_SLASHES = str.maketrans("", "", "\"/\\'")


def clean_report(report: str, variant: Variant = "iu_xray") -> str:
    """Clean as the family does: lower case, no punctuation, sentences joined by ``" . "``.

    Raises:
        ValueError: If the variant is unknown.
    """
    if variant not in MAX_LENGTH:
        raise ValueError(f"variant is one of {', '.join(MAX_LENGTH)}, not {variant!r}")
    text, dots = report, 3
    if variant != "iu_xray":
        text, dots = report.replace("\n", " "), 8
        text = _collapse(text, "__", "_", 7)
        text = _collapse(text, "  ", " ", 6)
    text = _collapse(text, "..", ".", dots).replace("1. ", "")
    for lead in (". ", " "):
        for number in "2345":
            text = text.replace(f"{lead}{number}. ", ". ")
    if variant == "mimic_cxr":
        text = text.replace(":", " :")
    deleted = _DELETED_PLAIN if variant == "mimic_cxr" else _DELETED_RANGE
    sentences = text.strip().lower().split(". ")
    cleaned = [deleted.sub("", sentence.translate(_QUOTES_AND_SLASHES).strip()) for sentence in sentences]
    return " . ".join(cleaned) + " ."


def _collapse(text: str, pair: str, single: str, times: int) -> str:
    for _ in range(times):
        text = text.replace(pair, single)
    return text


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that R2Gen knows: those seen often enough in the training reports; others are ``<unk>``."""

    words: frozenset[str]

    @classmethod
    def of(
        cls, reports: Iterable[str], variant: Variant = "iu_xray", threshold: int | None = None
    ) -> Vocabulary:
        """Count the words of cleaned training reports; the family's threshold is 3 (IU) or 10 (MIMIC)."""
        least = THRESHOLD[variant] if threshold is None else threshold
        counts = Counter(word for report in reports for word in clean_report(report, variant).split())
        return cls(frozenset(word for word, count in counts.items() if count >= least))


def truncate_reference(
    cleaned: str,
    max_length: int,
    *,
    vocabulary: Vocabulary | None = None,
    round_trip: Callable[[str, int], str] | None = None,
) -> str:
    """Cut a cleaned reference as the family does, which inflates its scores.

    Args:
        cleaned: Output of :func:`clean_report`.
        max_length: 60 for IU X-Ray, 100 for MIMIC-CXR and CheXpert Plus.
        vocabulary: R2Gen's: words outside it become ``<unk>``.
        round_trip: R2GenGPT's: encodes with a language model's tokenizer, cuts, decodes. Without it
            words are cut as in R2Gen, whose first position holds the start mark: ``max_length - 1`` words.
    """
    if round_trip is not None:
        return round_trip(cleaned, max_length)
    words = cleaned.split()[: max_length - 1]
    if vocabulary is not None:
        words = [word if word in vocabulary.words else "<unk>" for word in words]
    return " ".join(words)
