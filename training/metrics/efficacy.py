"""Clinical efficacy: whether a draft says of the 14 pathologies what the reference says.

Four conventions are in use and give figures that cannot be compared, so all are computed and named.
The paper's Table 1 is the macro average over 14 with uncertain as negative (the script of R2Gen):
only one of its rows satisfies the identity that a micro average must.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.labeler import Label, label
from models.pathologies import PATHOLOGIES, Pathology
from training.metrics.intervals import Interval, bootstrap

Labels = Mapping[Pathology, Label]

FIVE = (
    Pathology.CARDIOMEGALY,
    Pathology.EDEMA,
    Pathology.CONSOLIDATION,
    Pathology.ATELECTASIS,
    Pathology.PLEURAL_EFFUSION,
)
"""The five of the CheXpert competition, to which f1chexbert's short score is restricted."""

CONVENTIONS: Mapping[str, str] = {
    "macro_14": "mean over 14 pathologies, uncertain = 0 (R2Gen, MambaXray-VL, the paper's Table 1)",
    "micro_14": "pooled over 14 pathologies, uncertain = 0",
    "example_14": "mean over reports, positive class, uncertain = 0 (PromptMRG)",
    "micro_14_uncertain_1": "pooled over 14 pathologies, uncertain = 1 (f1chexbert)",
    "micro_5_uncertain_1": "pooled over 5 pathologies, uncertain = 1 (f1chexbert)",
}
PAPER_CONVENTION = "macro_14"


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficacy:
    """Precision, recall and F1 in one convention; ``f1`` carries the bootstrap interval."""

    convention: str
    precision: float
    recall: float
    f1: Interval

    def to_json(self) -> dict[str, Any]:
        """Figures and what the convention means."""
        return {
            "convention": self.convention,
            "meaning": CONVENTIONS[self.convention],
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1.to_json(),
        }


def label_matrix(labels: Sequence[Labels], *, uncertain: int) -> NDArray[np.int64]:
    """``(N, 14)`` of 0 and 1, blank as 0, uncertain as told."""
    value = {Label.POSITIVE: 1, Label.NEGATIVE: 0, Label.ABSENT: 0, Label.UNCERTAIN: uncertain}
    rows = [[value[report[pathology]] for pathology in PATHOLOGIES] for report in labels]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(PATHOLOGIES))


def clinical_efficacy(
    references: Sequence[str] | Sequence[Labels],
    drafts: Sequence[str] | Sequence[Labels],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Efficacy]:
    """Compare drafts with references in every convention.

    Args:
        references: Report texts, which are labelled here, or labels (drawn truth, another labeler's).
        drafts: The same, in the same order.
        resamples: Bootstrap draws over reports; 0 for none.
        seed: Of the bootstrap.

    Raises:
        ValueError: If the numbers differ or are zero.
    """
    if len(references) != len(drafts) or not len(references):
        raise ValueError(f"{len(references)} references for {len(drafts)} drafts")
    truth = [label(item) if isinstance(item, str) else item for item in references]
    said = [label(item) if isinstance(item, str) else item for item in drafts]
    zero = label_matrix(truth, uncertain=0), label_matrix(said, uncertain=0)
    one = label_matrix(truth, uncertain=1), label_matrix(said, uncertain=1)
    five = [PATHOLOGIES.index(pathology) for pathology in FIVE]
    scored = {
        "macro_14": (_macro, *zero),
        "micro_14": (_micro, *zero),
        "example_14": (_example, *zero),
        "micro_14_uncertain_1": (_micro, *one),
        "micro_5_uncertain_1": (_micro, one[0][:, five], one[1][:, five]),
    }
    result = {}
    for name, (score, y, z) in scored.items():
        precision, recall, _ = score(y, z)
        interval = bootstrap(lambda a, b, score=score: score(a, b)[2], y, z, resamples=resamples, seed=seed)
        result[name] = Efficacy(convention=name, precision=precision, recall=recall, f1=interval)
    return result


def efficacy_gain(
    references: Sequence[str] | Sequence[Labels],
    drafts: Sequence[str] | Sequence[Labels],
    others: Sequence[str] | Sequence[Labels],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """By how much the drafts' macro F1 (``macro_14``) exceeds that of other texts for the same studies.

    The bootstrap draws studies, each with both of its texts, so that what is hard for both cancels: the
    interval is that of the difference, and narrower than the two intervals suggest.

    Raises:
        ValueError: If the numbers differ or are zero.
    """
    if not len(references) == len(drafts) == len(others) or not len(references):
        raise ValueError(f"{len(references)} references for {len(drafts)} drafts and {len(others)} others")
    truth, said, instead = (
        label_matrix([label(one) if isinstance(one, str) else one for one in texts], uncertain=0)
        for texts in (references, drafts, others)
    )
    return bootstrap(
        lambda y, a, b: _macro(y, a)[2] - _macro(y, b)[2],
        truth,
        said,
        instead,
        resamples=resamples,
        seed=seed,
    )


def _micro(truth: NDArray[Any], said: NDArray[Any]) -> tuple[float, float, float]:
    hits, called, present = (truth & said).sum(), said.sum(), truth.sum()
    return _ratio(hits, called), _ratio(hits, present), _ratio(2 * hits, called + present)


def _macro(truth: NDArray[Any], said: NDArray[Any]) -> tuple[float, float, float]:
    return _mean_over(truth, said, axis=0)


def _example(truth: NDArray[Any], said: NDArray[Any]) -> tuple[float, float, float]:
    return _mean_over(truth, said, axis=1)


def _mean_over(truth: NDArray[Any], said: NDArray[Any], axis: int) -> tuple[float, float, float]:
    hits, called, present = (truth & said).sum(axis), said.sum(axis), truth.sum(axis)
    figures = []
    for top, bottom in ((hits, called), (hits, present), (2 * hits, called + present)):
        figures.append(float(np.divide(top, bottom, out=np.zeros(len(top)), where=bottom > 0).mean()))
    return figures[0], figures[1], figures[2]


def _ratio(top: Any, bottom: Any) -> float:
    return float(top / bottom) if bottom else 0.0
