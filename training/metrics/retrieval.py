"""Whether the retrieved exemplar shows what the study shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.pathologies import PATHOLOGIES, Pathology


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalAgreement:
    """Agreement of positive findings between studies and their exemplars; No Finding is left out.

    ``jaccard`` is the mean overlap of the two sets (1 where both are empty), ``exact`` the share of equal
    sets, ``recall`` the share of the studies' findings that the exemplar has too, ``precision`` the
    share of the exemplar's findings that the study has. ``chance_jaccard`` is the mean overlap with the
    exemplars of all other studies: what a retrieval that ignores the image would reach.
    """

    studies: int
    jaccard: float
    exact: float
    recall: float
    precision: float
    chance_jaccard: float

    def to_json(self) -> dict[str, int | float]:
        """Field by field."""
        return asdict(self)


def retrieval_agreement(studies: NDArray[Any], exemplars: NDArray[Any]) -> RetrievalAgreement:
    """Compare labels ``(N, 14)`` of 0 and 1 of studies and of the exemplar retrieved for each.

    Raises:
        ValueError: If shapes differ or there are no studies.
    """
    if studies.shape != exemplars.shape or studies.ndim != 2 or not len(studies):
        raise ValueError(f"studies {studies.shape} and exemplars {exemplars.shape} must be (N, 14)")
    keep = [k for k, p in enumerate(PATHOLOGIES) if p is not Pathology.NO_FINDING]
    a, b = (studies[:, keep] == 1).astype(np.int64), (exemplars[:, keep] == 1).astype(np.int64)
    shared = a @ b.T
    union = a.sum(1)[:, None] + b.sum(1)[None, :] - shared
    overlap = np.where(union > 0, shared / np.maximum(union, 1), 1.0)
    count = len(a)
    own = np.diag(overlap)
    others = (overlap.sum() - own.sum()) / (count * (count - 1)) if count > 1 else float("nan")
    hits = int(np.diag(shared).sum())
    return RetrievalAgreement(
        studies=count,
        jaccard=float(own.mean()),
        exact=float((a == b).all(1).mean()),
        recall=hits / int(a.sum()) if a.any() else 0.0,
        precision=hits / int(b.sum()) if b.any() else 0.0,
        chance_jaccard=float(others),
    )
