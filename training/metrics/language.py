"""BLEU-1..4, ROUGE-L and CIDEr of drafts against references, by the COCO caption scorers without Java.

*Strict*: whole references; words and numbers compared as written ("1.5" is one word), case and punctuation
ignored. *Legacy*: the family's cleaning and truncated references (see :mod:`training.metrics.legacy`), only
to stand beside published tables. Both are printed, and named, wherever either is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from training.metrics.legacy import MAX_LENGTH, Variant, Vocabulary, clean_report, truncate_reference

Mode = Literal["strict", "legacy"]

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['\u2019-][^\W_]+)*|[^\W_]+")
_NOWHERE = "\x00nowhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageScores:
    """Corpus scores: BLEU in [0, 1], ROUGE-L in [0, 1], CIDEr in [0, 10]."""

    mode: Mode
    reports: int
    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float
    rouge_l: float
    cider: float

    def to_json(self) -> dict[str, str | int | float]:
        """Field by field."""
        return asdict(self)


def language_scores(
    references: Sequence[str],
    drafts: Sequence[str],
    mode: Mode = "strict",
    *,
    variant: Variant = "iu_xray",
    max_length: int | None = None,
    vocabulary: Vocabulary | None = None,
    round_trip: Callable[[str, int], str] | None = None,
) -> LanguageScores:
    """Score drafts, one reference each, in the given order.

    CIDEr weighs words by how few references hold them, which says nothing for a single report: the
    package returns 0 then. As in R2GenGPT, all words weigh the same in that case.

    Args:
        references: As written.
        drafts: As written.
        mode: ``strict`` or ``legacy``; the arguments below matter for ``legacy`` only.
        variant: Which cleaner.
        max_length: Where references are cut; the variant's own by default.
        vocabulary: For ``<unk>`` in the references.
        round_trip: See :func:`truncate_reference`.

    Raises:
        ValueError: If the numbers differ or are zero, or the mode is unknown.
    """
    if len(references) != len(drafts) or not references:
        raise ValueError(f"{len(references)} references for {len(drafts)} drafts")
    if mode == "strict":
        expected = [tokenise(text) for text in references]
        given = [tokenise(text) for text in drafts]
    elif mode == "legacy":
        length = MAX_LENGTH[variant] if max_length is None else max_length
        expected = [
            truncate_reference(
                clean_report(text, variant), length, vocabulary=vocabulary, round_trip=round_trip
            )
            for text in references
        ]
        given = [clean_report(text, variant) for text in drafts]
    else:
        raise ValueError(f"mode is strict or legacy, not {mode!r}")
    # Positions as ids: a study id twice in a list would otherwise overwrite its first report.
    gts = {index: [text] for index, text in enumerate(expected)}
    res = {index: [text] for index, text in enumerate(given)}

    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
    rouge, _ = Rouge().compute_score(gts, res)
    if len(gts) == 1:
        _, each = Cider().compute_score(gts | {1: [_NOWHERE]}, res | {1: [_NOWHERE]})
        cider = float(each[0])
    else:
        cider = float(Cider().compute_score(gts, res)[0])
    return LanguageScores(
        mode=mode,
        reports=len(gts),
        bleu_1=float(bleu[0]),
        bleu_2=float(bleu[1]),
        bleu_3=float(bleu[2]),
        bleu_4=float(bleu[3]),
        rouge_l=float(rouge),
        cider=cider,
    )


def tokenise(text: str) -> str:
    """Words and whole numbers of a text in lower case, joined by one space."""
    return " ".join(_WORD.findall(text.lower()))
